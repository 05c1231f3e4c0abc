"""Two living workers adopt the sandbox of a dead one at the same moment: jobs never share it.

An engine finds a container by its name before it locks it for a rename, so both renames may succeed, one after the other. The
last name counts: a container can only join a sandbox by its name, the owner of the new name looks for containers that have
joined it before, and a job's owner looks for the name when its container is created.
"""

import threading
from dataclasses import replace

import pytest

from jobs import services
from jobs.engine.protocol import RunSpec
from jobs.models import Job
from jobs.worker.sandbox_table import SandboxState
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.fake_engine.process_container import FakeContainer
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, declare_worker_dead, running

pytestmark = pytest.mark.django_db(transaction=True)


class Race:
    """Two workers that both find the sandbox of a dead worker before either renames it.

    `quick` has renamed it and found it free. The rename by `late` is held until `finish`.
    """

    def __init__(self, engine: FakeEngine, workers: Workers, patch: pytest.MonkeyPatch) -> None:
        dead = workers.another(sandboxes=1)
        wait_for(lambda: names(dead, SandboxState.FREE), what="a sandbox")
        (self.sandbox,) = engine._containers.values()
        declare_worker_dead(dead)
        self._both_found = threading.Barrier(2)
        self._finish = threading.Event()
        self._engine = engine

        patch.setattr(engine, "rename", self._rename)
        racers = [workers.another(sandboxes=1, worker_threads=1) for _ in range(2)]
        wait_for(lambda: any(names(racer, SandboxState.FREE) for racer in racers), what="one worker to adopt it")
        patch.setattr(engine, "rename", lambda *args: FakeEngine.rename(engine, *args))
        self.quick, self.late = sorted(racers, key=lambda racer: not names(racer, SandboxState.FREE))

    def _rename(self, name: str, new_name: str) -> None:
        container = self._engine._find(name)
        if self._both_found.wait(20) == 0:
            self._finish.wait(20)
        FakeEngine.rename(self._engine, container.name, new_name)

    def finish(self, state: SandboxState) -> None:
        """Let the second rename happen, and wait until its worker has the sandbox in this state."""
        self._finish.set()
        wait_for(lambda: names(self.late, state) == [self.sandbox.name], what="the other worker to adopt it, too")


@pytest.fixture
def race(engine: FakeEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Race:
    return Race(engine, workers, monkeypatch)


def names(supervisor: Supervisor, state: SandboxState) -> list[str]:
    return [one.name for one in supervisor.sandboxes._in(state)]


def start_job(workers: Workers, supervisor: Supervisor) -> Job:
    job = make_job(command="exec sleep 60")
    wait_for(lambda: supervisor._engine_watch.answers, what="the engine to be watched")
    workers.run(supervisor)
    running(job)
    return job


def sandbox_of(engine: FakeEngine, job: Job) -> FakeContainer | None:
    """Return the sandbox that the job's container has joined."""
    (container,) = [one for one in engine._containers.values() if str(job.uuid) in one.name]
    return container.sandbox


def test_a_job_cannot_join_by_a_name_that_was_overwritten(engine: FakeEngine, workers: Workers, race: Race) -> None:
    # Given two workers that have both freed the same sandbox
    race.finish(SandboxState.FREE)
    assert names(race.quick, SandboxState.FREE)

    # When both start a job, I expect that of the last name alone to join it, and the other to start without
    jobs = [start_job(workers, race.quick), start_job(workers, race.late)]
    assert [sandbox_of(engine, job) for job in jobs] == [None, race.sandbox]

    # and each worker to have one in the end
    for job in jobs:
        services.cancel(job.id)
        completed(job)
    wait_for(lambda: all_listed(engine, race), what="a sandbox for each worker")


def test_a_job_that_has_joined_before_the_last_rename_keeps_the_sandbox(engine: FakeEngine, workers: Workers, race: Race) -> None:
    # Given a job that has joined a sandbox
    job = start_job(workers, race.quick)
    assert sandbox_of(engine, job) is race.sandbox

    # When the other worker renames it, I expect it not to be given to another job
    race.finish(SandboxState.RESERVED)
    assert sandbox_of(engine, start_job(workers, race.late)) is None


def test_a_container_that_was_being_created_during_the_last_rename_leaves_the_sandbox(
    engine: FakeEngine, workers: Workers, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job whose container is being created: the engine has found the sandbox, but does not list the container yet
    creating, go_on = threading.Event(), threading.Event()

    def slow(spec: RunSpec) -> None:
        creating.set()
        assert go_on.wait(20)
        FakeEngine.create(engine, replace(spec, sandbox=spec.sandbox and race.sandbox.name))

    monkeypatch.setattr(engine, "create", slow)
    first = make_job(command="exec sleep 60")
    wait_for(lambda: race.quick._engine_watch.answers, what="the engine to be watched")
    workers.run(race.quick)
    assert creating.wait(20)
    monkeypatch.setattr(engine, "create", lambda spec: FakeEngine.create(engine, spec))

    # When the other worker renames the sandbox, finds it free, and gives it to another job
    race.finish(SandboxState.FREE)
    second = start_job(workers, race.late)
    assert sandbox_of(engine, second) is race.sandbox

    # I expect the first one to start without
    go_on.set()
    running(first)
    assert sandbox_of(engine, first) is None


def test_a_worker_replaces_a_sandbox_that_another_one_has_renamed(engine: FakeEngine, race: Race) -> None:
    # Given two workers that have both freed the same sandbox
    race.finish(SandboxState.FREE)

    # When the first one compares its sandboxes with those of the engine, I expect it to make another one
    race.quick.sandboxes.sort(engine.list({}))
    wait_for(lambda: all_listed(engine, race), what="a sandbox for each worker")


def all_listed(engine: FakeEngine, race: Race) -> bool:
    """Return whether each worker has a sandbox of its own, and no container is left but these."""
    free = names(race.quick, SandboxState.FREE) + names(race.late, SandboxState.FREE)
    return len(free) == 2 and sorted(free) == sorted(one.name for one in engine.list({}))
