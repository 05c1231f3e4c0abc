"""Whole jobs whose callbacks accept events slowly or not at all."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from jobs import services
from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine
from jobs.logs import backpressure
from jobs.logs.backpressure import Backlog
from jobs.models import Job
from jobs.running.claimed_container import INSTANCE_LABEL
from jobs.spec import CallbackSpec, OutputSpec
from jobs.states import OutputType, Reason, State
from jobs.worker.nodes import instance_name
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.helpers.engines import tar_of
from tests.helpers.factories import make_job
from tests.helpers.job_checks import event_types
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running
from tests.jobs.logs.log_steps import assert_reported, reported_lines, stored_lines
from tests.jobs.logs.test_backpressure import (
    BACKLOG,
    LINES_PER_EVENT,
    MAX_PENDING,
    deliver,
    numbered,
    pending_events,
    small_limits,
)

__all__ = ["small_limits"]

pytestmark = pytest.mark.django_db(transaction=True)

PRINTED: Final = numbered(1, 500)
PRINT: Final = "seq -f %04g 500"
QUICK_LOG: Final = {"backlog_check": 0.01, "backlog_check_max": 0.05, "rest_stall": 0.05}
UNTIL_GO: Final = "while [ ! -e go ]; do sleep 0.02; done"


@pytest.fixture
def workers(engine: FakeEngine, tmp_path: Path, small_limits: None) -> Iterator[Workers]:
    workers = Workers(engine, tmp_path)
    workers.set_intervals(log=QUICK_LOG)
    yield workers
    workers.stop()


class StallDetector:
    """Counts how often in a row the backlog was found full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._full_in_a_row = 0
        self._is_full, self._publish = Backlog.is_full, Backlog.publish
        monkeypatch.setattr(Backlog, "is_full", lambda backlog: self._counted(self._is_full(backlog)))
        monkeypatch.setattr(Backlog, "publish", lambda backlog, *args: self._published(backlog, *args))

    def _counted(self, full: bool) -> bool:
        self._full_in_a_row += full
        return full

    def _published(self, *args: Any) -> None:
        self._full_in_a_row = 0
        self._publish(*args)

    def wait_for_stall(self) -> None:
        """Wait until a follower has checked a full backlog again and read nothing in between."""
        self._full_in_a_row = 0
        wait_for(lambda: self._full_in_a_row >= 3, 20, "the follower to be stalled")


@pytest.fixture
def stalls(monkeypatch: pytest.MonkeyPatch) -> StallDetector:
    return StallDetector(monkeypatch)


def stalled_job(workers: Workers, stalls: StallDetector, **values: Any) -> tuple[Job, Supervisor]:
    """Return a running job whose callback accepts nothing more, and the supervisor of its worker."""
    job, supervisor = make_job(**values), workers.another()
    workers.run(supervisor)
    running(job)
    stalls.wait_for_stall()
    return job, supervisor


def end_process(engine: Engine, labels: dict[str, str]) -> None:
    """Let the process go on that runs `UNTIL_GO`."""
    (seen,) = engine.list(labels)
    engine.put(seen.name, "/workspace", [tar_of("go", b"")])


def deliver_until_read(printed: Sequence[str]) -> None:
    wait_for(lambda: not deliver() and len(stored_lines()) == len(printed), 30, "all lines to be read")


def test_a_running_jobs_log_is_read_as_events_are_delivered(engine: FakeEngine, workers: Workers, stalls: StallDetector) -> None:
    # Given a job that has printed much more than its callback has accepted
    job, _ = stalled_job(workers, stalls, command=f"{PRINT}; {UNTIL_GO}; echo last")
    assert BACKLOG <= pending_events() <= MAX_PENDING
    assert stored_lines() == PRINTED[: len(stored_lines())]
    assert len(stored_lines()) <= MAX_PENDING * LINES_PER_EVENT

    # When
    deliver_until_read(PRINTED)
    end_process(engine, {})

    # I expect every line to be published once
    assert completed(job).status == State.COMPLETED
    assert stored_lines() == [*PRINTED, "last"]
    assert assert_reported([*PRINTED, "last"]) == 0


def test_the_end_of_a_process_does_not_wait_for_the_callback(engine: FakeEngine, workers: Workers, stalls: StallDetector) -> None:
    # Given a job with an output, whose callback accepts nothing
    out = OutputSpec(id="out", type=OutputType.EVENT, path="out")
    command = f"echo made > out; {PRINT}; {UNTIL_GO}; echo last; exit 3"
    job, _ = stalled_job(workers, stalls, command=command, outputs=(out,))

    # When
    end_process(engine, {})

    # I expect all its events, a complete stored log, and dropped lines to be counted
    job = completed(job)
    assert (job.reason, job.exit_code, job.outputs.get().status) == (Reason.EXIT_CODE, 3, "success")
    assert stored_lines() == [*PRINTED, "last"]
    assert assert_reported([*PRINTED, "last"]) > 0
    assert pending_events() <= MAX_PENDING + 3
    types = event_types(job)
    assert (types[0], {*types[1:-3]}, types[-3:]) == ("start", {"log"}, ["exit", "output", "complete"])


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "overdue"])
def test_a_stalled_job_can_be_cancelled_and_times_out(workers: Workers, stalls: StallDetector, cancelled: bool) -> None:
    # Given
    job, supervisor = stalled_job(workers, stalls, command=f"{PRINT}; exec sleep 60")

    # When
    if cancelled:
        services.cancel(job.id)
    else:
        (run,) = supervisor._runs.snapshot()
        run.deadline = time.monotonic()

    # I expect the process to be stopped, and a complete stored log
    job = completed(job)
    assert (job.reason, job.exit_code) == (Reason.CANCELLED if cancelled else Reason.TIMEOUT, 143)
    assert stored_lines() == PRINTED
    assert assert_reported(PRINTED) > 0
    assert event_types(job)[-2:] == ["exit", "complete"]


def test_a_stalled_job_stays_stalled_when_handed_over(engine: FakeEngine, workers: Workers, stalls: StallDetector) -> None:
    # Given
    job, first = stalled_job(workers, stalls, command=f"{PRINT}; {UNTIL_GO}; echo last")
    before = stored_lines()

    # When its worker stops and another one continues
    first.stop()
    assert first._runs.snapshot() == []
    workers.run(workers.another())
    stalls.wait_for_stall()

    # I expect nothing more to be read
    assert Job.objects.get().claims == 2
    assert stored_lines() == before

    # And every line to be published once when the callback accepts events again
    deliver_until_read(PRINTED)
    end_process(engine, {})
    completed(job)
    assert assert_reported([*PRINTED, "last"]) == 0


@pytest.mark.parametrize("wanted", [(), ("orchestrator.job.start",)], ids=["no callback", "a callback without log events"])
def test_a_job_without_log_events_is_read_while_it_runs(engine: FakeEngine, workers: Workers, wanted: tuple[str, ...]) -> None:
    callback = CallbackSpec(url="http://127.0.0.1:9/", events=wanted) if wanted else None
    job = make_job(command=f"{PRINT}; {UNTIL_GO}", callback=callback)
    workers.run(workers.another())

    wait_for(lambda: stored_lines() == PRINTED, 20, "all lines to be stored")
    assert Job.objects.get().status == State.RUNNING

    end_process(engine, {})
    assert completed(job).status == State.COMPLETED


@pytest.mark.engine
def test_docker_keeps_the_log_of_a_stalled_job(
    docker_host: str, tmp_path: Path, stalls: StallDetector, request: pytest.FixtureRequest
) -> None:
    # Given a job that prints 100,000 lines and keeps running, and a callback that accepts nothing
    engine = DockerEngine(docker_host)
    workers, labels = Workers(engine, tmp_path), {INSTANCE_LABEL: instance_name()}  # type: ignore[arg-type]
    workers.set_intervals(log=QUICK_LOG)
    request.addfinalizer(partial(remove_all, engine, labels))
    request.addfinalizer(workers.stop)
    padding = "x" * 200
    command = f"seq 100000 | sed s/$/{padding}/; touch printed; {UNTIL_GO}; echo last"
    job, _ = stalled_job(workers, stalls, command=command, network="none")

    # I expect the process to continue, and its log to be read until the backlog is full
    (seen,) = engine.list(labels)
    wait_for(lambda: engine.stat(seen.name, "/workspace/printed"), 30, "all to be printed")
    stalls.wait_for_stall()
    limit = backpressure.MAX_UNDELIVERED
    assert limit <= pending_events() < limit + 20
    assert reported_lines() == (stored_lines(), 0)

    # When the process ends
    end_process(engine, labels)

    # I expect each line to be published or counted, and the log to be stored up to LOG_LIMIT
    assert completed(job).status == State.COMPLETED
    printed = [*(f"{number}{padding}" for number in range(1, 100_001)), "last"]
    assert assert_reported(printed) > 0
    assert pending_events() < limit + 20
    *kept, marker = stored_lines()
    assert kept == printed[: len(kept)]
    assert "reached the limit" in marker
    assert event_types(job)[-2:] == ["exit", "complete"]


def remove_all(engine: DockerEngine, labels: dict[str, str]) -> None:
    for seen in engine.list(labels):
        engine.remove(seen.name, force=True)
    for network_id in engine.list_networks(labels):
        engine.remove_network(network_id)
