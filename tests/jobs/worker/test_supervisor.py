"""A worker whose engine, broker or database does not answer."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import InternalError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from jobs import services
from jobs.errors import EngineRefused
from jobs.models import Job, Node, Worker
from jobs.running import claiming
from jobs.states import State
from jobs.worker.supervisor import Supervisor
from tests.helpers.clock import ManualClock
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running
from tests.jobs.worker.freezable_engine import FreezableEngine

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = 0.05  # seconds


@pytest.fixture(autouse=True)
def quick(workers: Workers) -> None:
    workers.set_intervals(
        worker={"tick": QUICK, "heartbeat": QUICK},
        engine={"watch": QUICK, "watch_retry": QUICK, "watch_valid": 1.0},
    )


@pytest.fixture
def engine() -> Iterator[FreezableEngine]:
    engine = FreezableEngine()
    yield engine
    engine.close()


def stop_answering(engine: FreezableEngine, how: str, supervisor: Supervisor) -> None:
    """Make the engine stop answering, and wait until its worker has noticed."""
    if how == "frozen":
        engine.freeze()
    else:
        engine.unavailable = True
    wait_for(lambda: not supervisor._engine_watch.answers, 10, "the watch to notice")
    wait_for_heartbeats(2)  # a tick that began before is over


def answer_again(engine: FreezableEngine) -> None:
    engine.unavailable = False
    engine.thaw()


def wait_for_heartbeats(count: int) -> None:
    """Wait for this number of heartbeats of the only worker."""
    counter = Worker.objects.get().counter
    wait_for(lambda: Worker.objects.get().counter >= counter + count, 10, "heartbeats")


away_and_frozen = pytest.mark.parametrize("how", ["away", "frozen"])


@away_and_frozen
def test_a_node_is_not_seen_while_its_engine_does_not_answer(engine: FreezableEngine, workers: Workers, how: str) -> None:
    # Given a running job
    job = make_job(command="exec sleep 60")
    supervisor = workers.another()
    workers.run(supervisor)
    running(job)

    # When the engine stops answering
    stop_answering(engine, how, supervisor)
    wait_for_heartbeats(2)
    seen_at = Node.objects.get().seen_at

    # I expect the worker to send heartbeats and keep its job, and the node's heartbeat to stand still
    wait_for_heartbeats(3)
    assert Node.objects.get().seen_at == seen_at
    assert Job.objects.get().owner_id == supervisor._heartbeat.worker_id

    # And to move when the engine is back
    answer_again(engine)
    wait_for(lambda: Node.objects.get().seen_at != seen_at, 10, "the node to be seen")
    services.cancel(job.id)
    assert completed(job).exit_code == 143


@away_and_frozen
def test_no_job_is_claimed_while_the_engine_does_not_answer(
    engine: FreezableEngine, workers: Workers, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker whose engine does not answer
    hints: list[str] = []
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda queue, *_: not hints.append(queue))
    supervisor = workers.another()
    stop_answering(engine, how, supervisor)

    # When a job is created and one of the worker's threads gets a message
    job = make_job()
    supervisor.run_jobs()
    wait_for_heartbeats(2)

    # I expect the job to be left to other nodes
    job.refresh_from_db()
    assert (job.status, job.node, hints) == (State.ACCEPTED, None, [])

    # And a thread to be woken when the engine is back
    answer_again(engine)
    wait_for(lambda: hints, 10, "the hint")
    supervisor.run_jobs()
    assert completed(job).status == State.COMPLETED


def test_a_new_warning_of_the_engine_is_stored(
    engine: FreezableEngine, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker whose engine gave one warning at the start
    engine.warnings = ("jobs can reach the node",)
    workers.another()
    assert Node.objects.get().warnings == ["jobs can reach the node"]

    # When creating a container shows another one
    engine.warnings = ("swap is not limited",)

    # I expect it in the node's row, and once in the log
    wait_for(lambda: Node.objects.get().warnings == ["swap is not limited"], 10, "the warning")
    assert caplog.text.count("a limit is not enforced: swap is not limited") == 1


def test_a_worker_does_not_start_on_an_engine_that_cannot_run_its_jobs(engine: FreezableEngine, workers: Workers) -> None:
    engine.cannot_run = "the engine has no runtime fast (JOB_RUNTIME)"

    with pytest.raises(EngineRefused, match="no runtime fast"):
        workers.another()

    assert not Worker.objects.exists()


def test_jobs_run_while_the_broker_is_away(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a broker that accepts no message, and a process of two threads
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)
    jobs = [make_job(command="exec sleep 60") for _ in range(3)]

    # When
    supervisor = workers.another(worker_threads=2)

    # I expect two jobs to run, and the third when one of them has ended
    for job in jobs[:2]:
        running(job)
    supervisor.run_jobs()
    assert Job.objects.get(pk=jobs[2].pk).node is None
    services.cancel(jobs[0].id)
    running(jobs[2])
    for job in jobs[1:]:
        services.cancel(job.id)
    for job in jobs:
        assert completed(job).status == State.CANCELLED


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [OperationalError("the connection is lost"), InternalError("read-only transaction")])
def test_a_failed_look_for_more_jobs_costs_no_claim(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    # Given a job, and a database that fails when a worker looks for more
    job = make_job()
    monkeypatch.setattr("jobs.worker.supervisor.claiming.has_work", failing(error))

    # When one of two threads claims the job
    workers.another(worker_threads=2).run_jobs()

    # I expect its first claim to be driven to the end
    job = completed(job)
    assert (job.status, job.claims) == (State.COMPLETED, 1)
    assert f"cannot look for more jobs: {error}" in caplog.text


def test_a_demoted_primary_is_logged_as_a_warning(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a database that has become read-only
    error = InternalError("cannot execute UPDATE in a read-only transaction")
    monkeypatch.setattr("jobs.worker.supervisor.DeadWorkerDetector.check", failing(error))

    # When the supervisor ticks
    workers.another()
    wait_for(lambda: str(error) in caplog.text, 10, "the supervisor to notice")

    # I expect a warning without a traceback
    assert {(record.levelname, record.exc_info) for record in caplog.records if str(error) in record.getMessage()} == {
        ("WARNING", None)
    }
    assert "an unexpected error" not in caplog.text


def test_a_worker_with_all_threads_busy_sends_no_hint(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process of one thread that has a job
    hints: list[str] = []
    ticks: list[int] = []
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda queue, *_: not hints.append(queue))
    monkeypatch.setattr("jobs.worker.supervisor.DeadWorkerDetector.check", lambda _: ticks.append(1))
    job = make_job(command="exec sleep 60")
    thread = workers.run(workers.another(worker_threads=1))
    running(job)

    # When another job waits and the supervisor ticks
    hints.clear()
    ticks.clear()
    waiting = make_job()
    wait_for(lambda: len(ticks) > 2, 10, "ticks")

    # I expect no hint: the same thread claims it next
    assert hints == []
    services.cancel(job.id)
    thread.join(10)
    assert completed(waiting).status == State.COMPLETED


def test_the_threads_of_a_worker_claim_one_after_the_other(
    idle: tuple[Supervisor, ManualClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a claim that takes until another one begins, or a moment
    inside, together = threading.Semaphore(1), threading.Event()

    def claim(*_: object) -> None:
        if not inside.acquire(blocking=False):
            together.set()
            return
        together.wait(0.3)
        inside.release()

    monkeypatch.setattr(claiming, "claim", claim)

    # When two threads look for a job at the same time
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            threads.submit(idle[0].run_jobs)

    # I expect the second one to wait for the first: they would try the same jobs
    assert not together.is_set()


def test_a_thread_that_waits_for_its_turn_claims_nothing_after_a_stop(
    idle: tuple[Supervisor, ManualClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a thread that claims a job, and another one that waits for its turn
    supervisor, _ = idle
    claims: list[bool] = []
    go_on = threading.Event()

    def claim(*_: object) -> None:
        claims.append(supervisor._stopping.is_set())
        assert go_on.wait(20)

    monkeypatch.setattr(claiming, "claim", claim)
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            threads.submit(supervisor.run_jobs)
        wait_for(lambda: claims and supervisor._busy == 2, 20, "both threads")

        # When the worker is stopped
        supervisor.stop()
        go_on.set()

    # I expect no further claim: it would bind a job to a node that may not come back
    assert claims == [False]


@pytest.fixture
def idle(workers: Workers) -> tuple[Supervisor, ManualClock]:
    """A worker without a job, whose ticks the test makes."""
    workers.set_intervals(worker={"tick": 1000.0, "heartbeat": 5.0})
    supervisor = workers.another()
    wait_for(lambda: supervisor._dead_workers._read_at > 0, 10, "the first tick")
    clock = ManualClock()
    clock.now = time.monotonic()
    supervisor._clock = supervisor._dead_workers._clock = clock
    return supervisor, clock


def test_a_claim_whose_answer_was_lost_is_released_soon(
    idle: tuple[Supervisor, ManualClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an idle worker that has claimed a job without knowing: the connection was lost before the commit was answered
    supervisor, clock = idle
    job = make_job()
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: True)

    committed = claiming.claim

    def claim(*arguments: Any) -> None:
        assert committed(*arguments)
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(claiming, "claim", claim)
    with pytest.raises(OperationalError):
        supervisor.run_jobs()
    assert Job.objects.get(pk=job.pk).owner_id == supervisor._heartbeat.worker_id

    # When it has ticked twice, I expect the job to be free
    for _ in range(2):
        clock.now += 1
        supervisor._tick()
    assert Job.objects.get(pk=job.pk).owner_id is None


def test_a_job_seen_without_a_thread_is_looked_at_again_in_the_next_tick(
    idle: tuple[Supervisor, ManualClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that no thread drives, which an idle worker has seen once
    supervisor, clock = idle
    job = make_job()
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: True)
    assert claiming.claim(supervisor.node.pk, supervisor._heartbeat.worker_id)
    clock.now += 20
    supervisor._tick()

    # When it ticks again, I expect the job to be free
    clock.now += 1
    supervisor._tick()
    assert Job.objects.get(pk=job.pk).owner_id is None


def test_an_idle_worker_makes_few_statements(idle: tuple[Supervisor, ManualClock]) -> None:
    # When an idle worker ticks for a minute
    supervisor, clock = idle
    with CaptureQueriesContext(connection) as queries:
        for _ in range(60):
            clock.now += 1
            supervisor._tick()

    # I expect a statement each second that finds out whether there is a job to claim, one every four seconds for the heartbeats
    # of all workers, two heartbeats every five seconds, and every twenty seconds a look for jobs that no thread drives; nothing
    # of it needs a BEGIN and a COMMIT
    assert len(queries) <= 60 + 15 + 2 * 12 + 3

    # And I expect none to read the node, as the statement does that chooses a job: it is the most expensive to plan
    assert not [query["sql"] for query in queries if query["sql"].startswith("SELECT") and "jobs_node" in query["sql"]]
