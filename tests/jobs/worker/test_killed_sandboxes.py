"""A worker is killed at any call about its network sandboxes: the next worker has them all, and no other is left."""

import itertools

import pytest

from jobs.worker.sandbox_table import SandboxState
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.helpers.kills import Killer, Moment, killing
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, declare_worker_dead

pytestmark = pytest.mark.django_db(transaction=True)

SIZE = 2


def has_all(supervisor: Supervisor, engine: FakeEngine) -> bool:
    """Return whether the worker has its sandboxes, all free, and no container is left but these."""
    mine = sorted(one.name for one in supervisor.sandboxes._in(SandboxState.FREE))
    return len(mine) == SIZE and mine == sorted(one.name for one in engine.list({}))


def use_and_change(supervisor: Supervisor, engine: FakeEngine) -> None:
    """Use a sandbox as a job does that changes its files: it must be replaced."""
    sandbox = supervisor.sandboxes.take()
    assert sandbox is not None
    engine.changed_sandboxes.add(sandbox.name)
    supervisor.sandboxes.give_back(sandbox)


def run_and_kill(engine: FakeEngine, workers: Workers, place: int, moment: Moment) -> Killer:
    """Start a worker that adopts, makes, checks, removes and replaces sandboxes, and kill it meanwhile; declare it dead."""
    with killing("sandboxes", place, moment, engine) as killer:
        supervisor = workers.another(sandboxes=SIZE)
        wait_for(lambda: killer.killed or has_all(supervisor, engine), what="the sandboxes")
        if not killer.killed:
            use_and_change(supervisor, engine)
            wait_for(lambda: killer.killed or has_all(supervisor, engine), what="another sandbox")
        declare_worker_dead(supervisor)
    return killer


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_while_it_keeps_sandboxes_is_replaced(engine: FakeEngine, workers: Workers, moment: Moment) -> None:
    workers.set_intervals(worker={"tick": 60.0})
    for place in itertools.count(1):
        # Given one sandbox of a worker that is dead, and a worker that is killed
        first = workers.another(sandboxes=1)
        wait_for(lambda first=first: first.sandboxes._in(SandboxState.FREE), what="a sandbox")  # type: ignore[misc]
        declare_worker_dead(first)
        killer = run_and_kill(engine, workers, place, moment)
        print(killer.story)

        # When another worker starts
        second = workers.another(sandboxes=SIZE)

        # I expect it to have its sandboxes, and nothing else to be left
        wait_for(lambda second=second: has_all(second, engine), what="the sandboxes")  # type: ignore[misc]
        declare_worker_dead(second)
        for container in engine.list({}):
            engine.remove(container.name, force=True)
        if not killer.killed:
            break
    assert {"create_sandbox", "is_sandbox_clean", "rename", "remove"} <= set(killer.effects)
