"""A worker process whose engine or broker does not answer."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import InternalError, OperationalError

from jobs import services
from jobs.engine.protocol import EngineInfo
from jobs.errors import EngineUnavailable
from jobs.models import Job, Node, Worker
from jobs.states import State
from jobs.worker.engine_watch import EngineWatch
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base.intervals import EngineIntervals
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = 0.05  # seconds
INTERVALS = EngineIntervals(watch=QUICK, watch_retry=QUICK, watch_valid=1.0)


class Engine(FakeEngine):
    """One that can be frozen too, and whose clock is an hour ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = threading.Event()
        self.moves.set()

    def info(self) -> EngineInfo:
        self.moves.wait()
        info = super().info()
        return EngineInfo(info.id, info.name, info.cpus, info.memory_bytes, info.warnings, info.clock + timedelta(hours=1))


@pytest.fixture(autouse=True)
def quick(workers: Workers) -> None:
    workers.set_intervals(
        worker={"tick": QUICK, "heartbeat": QUICK}, engine={"watch": QUICK, "watch_retry": QUICK, "watch_valid": 1.0}
    )


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.moves.set()
    engine.close()


def lose(engine: Engine, how: str) -> None:
    engine.moves.clear() if how == "frozen" else setattr(engine, "unavailable", True)


def give_back(engine: Engine) -> None:
    engine.unavailable = False
    engine.moves.set()


def beats(times: int) -> None:
    """Wait for so many heartbeats of the worker."""
    counter = Worker.objects.get().counter
    wait_for(lambda: Worker.objects.get().counter >= counter + times, 10, "heartbeats")


def stops_answering(supervisor: Supervisor) -> None:
    wait_for(lambda: not supervisor._engine_watch.answers, 10, "the watch to notice")


both = pytest.mark.parametrize("how", ["away", "frozen"])


@both
def test_the_node_is_seen_only_while_its_engine_answers_and_the_worker_lives_on(
    engine: Engine, workers: Workers, how: str
) -> None:
    # Given a running job
    job = make_job(command="exec sleep 60")
    supervisor = workers.another()
    workers.run(supervisor)
    running(job)

    # When the engine does not answer any more
    lose(engine, how)
    stops_answering(supervisor)
    beats(2)
    seen_at = Node.objects.get().seen_at

    # I expect the worker to go on, with its job, and the node's time to stand still
    beats(3)
    assert Node.objects.get().seen_at == seen_at
    assert Job.objects.get().owner_id == supervisor._heartbeat.worker_id

    # And to move when the engine is back
    give_back(engine)
    wait_for(lambda: Node.objects.get().seen_at != seen_at, 10, "the node to be seen")
    services.cancel(job.id)
    assert completed(job).exit_code == 143


@both
def test_no_job_is_claimed_for_an_engine_that_does_not_answer(
    engine: Engine, workers: Workers, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker whose engine does not answer
    called: list[str] = []
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda queue, *_: not called.append(queue))
    supervisor = workers.another()
    lose(engine, how)
    stops_answering(supervisor)

    # When a job is posted and one of its threads is called
    job = make_job()
    supervisor.run_jobs()
    beats(2)

    # I expect the job to wait, for whoever can run it
    job.refresh_from_db()
    assert (job.status, job.node, called) == (State.ACCEPTED, None, [])

    # And a thread to be called when the engine is back
    give_back(engine)
    wait_for(lambda: called, 10, "the call")
    supervisor.run_jobs()
    assert completed(job).status == State.COMPLETED


def test_a_limit_that_the_engine_turns_out_not_to_enforce_is_written_down(
    engine: Engine, workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker whose engine gave no warning at its start
    workers.another()
    assert Node.objects.get().warnings == []

    # When one comes with a container
    engine.warnings = ("swap is not limited",)

    # I expect the node and the log to tell of it
    wait_for(lambda: Node.objects.get().warnings == ["swap is not limited"], 10, "the warning")
    assert caplog.text.count("cannot enforce a limit: swap is not limited") == 1


def test_jobs_are_run_while_the_broker_takes_no_message(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a broker that is away, and a process of two threads
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)
    jobs = [make_job(command="exec sleep 60") for _ in range(3)]

    # When
    supervisor = workers.another(worker_threads=2)

    # I expect two jobs to run, and the third when one of them is done
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
def test_a_database_that_does_not_say_whether_there_is_more_costs_no_claim(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    # Given a job, and a database that fails when it is asked for more
    job = make_job()
    monkeypatch.setattr("jobs.worker.supervisor.claiming.has_work", failing(error))

    # When a thread that is not the only one takes the job
    workers.another(worker_threads=2).run_jobs()

    # I expect its first claim to have been driven to the end
    job = completed(job)
    assert (job.status, job.claims) == (State.COMPLETED, 1)
    assert f"cannot look for more jobs: {error}" in caplog.text


def test_a_primary_that_was_demoted_is_no_unexpected_error_of_the_supervisor(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a database that takes reads only
    error = InternalError("cannot execute UPDATE in a read-only transaction")
    monkeypatch.setattr("jobs.worker.supervisor.DeadWorkerDetector.check", failing(error))

    # When the supervisor looks around
    workers.another()
    wait_for(lambda: str(error) in caplog.text, 10, "the supervisor to notice")

    # I expect a warning
    assert {(record.levelname, record.exc_info) for record in caplog.records if str(error) in record.getMessage()} == {
        ("WARNING", None)
    }
    assert "an unexpected error" not in caplog.text


def test_the_engines_clock_goes_on_between_its_answers(engine: Engine) -> None:
    # Given an engine that is frozen after its first answer
    watch = EngineWatch(engine, "node", INTERVALS)
    first = watch.clock()
    engine.moves.clear()
    watch.start()

    # I expect its time to go on, an hour ahead as it is
    wait_for(lambda: watch.clock() > first, 5)
    engine.moves.set()
    assert abs(watch.clock() - engine.info().clock) < timedelta(seconds=10)
    watch.stop()


def test_an_error_that_nobody_foresaw_does_not_end_the_watch(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    # Given an engine that answers nonsense
    watch = EngineWatch(engine, "node", INTERVALS)
    engine.fail_next("info", KeyError("ID"))

    # When it is asked
    watch.start()

    # I expect it to be asked again
    wait_for(lambda: "the engine answers again" in caplog.text, 5)
    assert watch.answers
    watch.stop()


def test_a_watch_needs_an_engine_that_answers(engine: Engine) -> None:
    engine.unavailable = True
    with pytest.raises(EngineUnavailable):
        EngineWatch(engine, "node", INTERVALS)
