"""A worker is killed at any of a job's commits and engine calls: the next worker goes on, on the fake engine.

The places are not listed here but counted while a job runs, so that a merged, split or new transaction is a place at once:

| place | where a process is killed there |
|---|---|
| claim, create, inputs, fence, start, start and decision, log, decision, exit and completion, outputs, removal | here |
| between a commit and its hints | here: nothing of the thread runs after the commit |
| adoption of a container | here |
| sandboxes: made, adopted, checked, removed | `tests/jobs/worker/test_killed_sandboxes.py` |
| sandboxes: taken, given back | here: at the creation and the removal of the container that joins one |
| log that is read on after the decision, in several commits | here |
| log: within and after a commit, at any line | `tests/jobs/logs/test_backpressure.py` |
| uploads | `test_hand_over.py` |
| requeueing | `test_failing_starts.py` |
| deliveries: claimed, sent, recorded, passed on, hinted | `tests/callbacks/delivery/test_killed_deliveries.py` |
| real processes, with SIGKILL | `tests/faults/test_processes.py`, `tests/faults/test_delivery_kill.py` |
"""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import connection

from jobs.interrupt import Interrupt
from jobs.maintenance.leftovers import remove_leftovers
from jobs.models import Job
from jobs.spec import CallbackSpec, OutputSpec
from jobs.states import OutputType, State
from jobs.worker.sandbox_table import SandboxState
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base.intervals import RelayIntervals
from tests.fake_engine import FakeEngine
from tests.helpers.delivery_fixtures import relay_and_deliver
from tests.helpers.engines import tar_of
from tests.helpers.factories import make_job
from tests.helpers.job_checks import end_before_first_look, event_types, file_input, stored_log
from tests.helpers.kills import Killer, Moment, killing
from tests.helpers.receiver import Receiver
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, declare_worker_dead

pytestmark = pytest.mark.django_db(transaction=True)

LONG_LOG = 100  # lines


class Crashes:
    """A worker with one sandbox, which is replaced by another one whenever it is killed, and one job at a time."""

    def __init__(self, engine: FakeEngine, workers: Workers, receiver: Receiver) -> None:
        self._engine, self._workers, self._receiver = engine, workers, receiver
        # Nothing of a worker whose thread is killed ticks on. The end of a process is noticed after the first frame of its log.
        workers.set_intervals(worker={"tick": 60.0}, log={"exit_check": 0.0})
        self._worker = self._another()
        wait_for(self._only_sandbox_left, 20, "the sandbox")

    def _another(self) -> Supervisor:
        worker = self._workers.another(worker_threads=1, sandboxes=1)
        wait_for(lambda: worker._engine_watch.answers, 20, "the engine to be watched")
        return worker

    def new_job(self, *, files: bool = False) -> Job:
        callback = CallbackSpec(url=self._receiver.url, keys=("key",))
        if not files:
            return make_job(command="echo ran", callback=callback)
        output = OutputSpec(id="out", type=OutputType.EVENT, path="out")
        return make_job(command="echo ran; cp in out", inputs=(file_input("in", b"x"),), outputs=(output,), callback=callback)

    def new_job_with_log(self) -> Job:
        return make_job(
            command=f"while [ ! -e go ]; do sleep 0.02; done; seq {LONG_LOG}",
            callback=CallbackSpec(url=self._receiver.url, keys=("key",)),
        )

    def run_and_kill(self, place: int | str, moment: Moment) -> Killer:
        """Run what there is to run; if the worker is killed, replace it."""
        with killing(threading.current_thread().name, place, moment, self._engine) as killer:
            self._worker.run_jobs()
        if killer.killed:
            connection.close()
            declare_worker_dead(self._worker)
            self._worker = self._another()
        return killer

    def run(self) -> None:
        self._worker.run_jobs()

    def check_outcome(self, job: Job, log: Sequence[str] = ("ran",)) -> None:
        """Check that the job ran to its end once, is reported in order, and left nothing but the worker's one sandbox."""
        job = completed(job)
        assert (job.status, job.exit_code, stored_log(job)) == (State.COMPLETED, 0, list(log))
        story = ["start", "log", "exit", "complete"]
        if job.has_outputs:
            story = ["input", "start", "log", "exit", "output", "complete"]
        assert [name for name, _ in itertools.groupby(event_types(job))] == story
        relay_and_deliver()
        received = [request.json for request in self._receiver.requests if request.json["subject"] == job.id]
        assert [event["type"] for event in received] == [f"orchestrator.job.{name}" for name in event_types(job)]
        assert [line for event in received for line in event["data"].get("lines", [])] == list(log)

        wait_for(self._only_sandbox_left, 20, "no container but a free sandbox")
        node = self._worker.node
        node.refresh_from_db()
        assert (node.cpu_millis_reserved, node.memory_mib_reserved) == (0, 0)

    def _only_sandbox_left(self) -> bool:
        """Remove leftovers; return whether a free sandbox of the worker is the only container."""
        pool, intervals = self._worker.sandboxes, RelayIntervals(leftover_grace=0.0)
        remove_leftovers(self._engine, self._worker.node, self._worker.instance, pool.sort, intervals)
        return [one.name for one in pool._in(SandboxState.FREE)] == [one.name for one in self._engine.list({})]


@pytest.fixture
def crashes(engine: FakeEngine, workers: Workers, receiver: Receiver) -> Crashes:
    return Crashes(engine, workers, receiver)


def kill_everywhere(crashes: Crashes, moment: Moment, *, files: bool) -> list[str]:
    """Kill a worker at the first place of a job, another at the second place of another job, and so on; return the places."""
    for place in itertools.count(1):
        # Given a job whose worker is killed
        job = crashes.new_job(files=files)
        killer = crashes.run_and_kill(place, moment)

        # When another worker continues, I expect the same as without
        crashes.run()
        print(killer.story)
        crashes.check_outcome(job)
        if not killer.killed:
            return killer.effects
    raise AssertionError


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_at_any_place_of_a_plain_job_is_replaced(
    engine: FakeEngine, crashes: Crashes, monkeypatch: pytest.MonkeyPatch, moment: Moment
) -> None:
    # Its process has ended by the first look, so that its start and its decision are committed together
    end_before_first_look(engine, monkeypatch)
    places = kill_everywhere(crashes, moment, files=False)
    assert {"commit", "create", "start", "remove"} <= set(places)


def test_a_worker_killed_at_any_place_of_a_job_with_files_is_replaced(crashes: Crashes) -> None:
    # Right before an effect is like right after the one before
    places = kill_everywhere(crashes, "after", files=True)
    assert {"commit", "create", "put", "start", "remove"} <= set(places)


def end_before_log_is_opened(engine: FakeEngine, patch: pytest.MonkeyPatch) -> list[str]:
    """Let a log be followed only when its process has ended, after it was seen running; return how logs are opened."""
    open_log, opened = engine.logs, []

    def wait_and_open(name: str, *, follow: bool, tail: int | None = None, **options: Any) -> Any:
        opened.append("followed" if follow else "all" if tail is None else "tail")
        if follow:
            FakeEngine.put(engine, name, "/workspace", [tar_of("go", b"")])
            engine.wait(name, Interrupt())
        return open_log(name, follow=follow, tail=tail, **options)

    patch.setattr(engine, "logs", wait_and_open)
    return opened


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_while_it_reads_on_after_the_decision_is_replaced(
    engine: FakeEngine, crashes: Crashes, monkeypatch: pytest.MonkeyPatch, moment: Moment
) -> None:
    # Given jobs of which only the first line was read when they were decided; then the rest is committed in several batches
    monkeypatch.setattr("jobs.log_lines.MAX_BATCH_BYTES", LONG_LOG)
    opened = end_before_log_is_opened(engine, monkeypatch)
    log = [str(number) for number in range(1, LONG_LOG + 1)]
    for place in itertools.count(1):
        job, opened[:] = crashes.new_job_with_log(), []
        killer = crashes.run_and_kill(place, moment)

        # When another worker continues, I expect each line once
        crashes.run()
        print(killer.story, opened)
        crashes.check_outcome(job, log)
        if not killer.killed:
            break
    assert opened == ["followed", "tail"]
    assert killer.effects.count("commit") > 6


@pytest.mark.parametrize("place", ["commit", "rename"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_while_it_adopts_a_container_is_replaced(crashes: Crashes, place: str, moment: Moment) -> None:
    # Given a job whose worker was killed after the start
    job = crashes.new_job()
    assert crashes.run_and_kill("start", "after").killed

    # When the next one is killed while it adopts the container
    assert crashes.run_and_kill(place, moment).killed

    # I expect a third one to continue
    crashes.run()
    crashes.check_outcome(job)
