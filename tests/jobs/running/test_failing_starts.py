"""Jobs on a node whose engine fails to start containers, on the fake engine."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from jobs import lifecycle, services
from jobs.api.waiting_reason import waiting_for
from jobs.errors import EngineInTrouble, StartFailed, StartRefused
from jobs.maintenance.dead_workers import sign_off
from jobs.models import Job
from jobs.states import Reason, State
from tests.fake_engine import FakeEngine
from tests.helpers.factories import make_job
from tests.helpers.kills import Killed
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed
from tests.jobs.test_start_breaker import OLD_RUNC, jobs_of, node_refuses, readiness, refuse

pytestmark = pytest.mark.django_db(transaction=True)


QUICK = 0.05  # seconds


class Engine(FakeEngine):
    """A fake engine that can refuse starts."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal: Exception | None = None
        self.refuses = ""  # what the images that it refuses begin with
        self.starts: list[str] = []  # images
        self._count = threading.Lock()

    def start(self, name: str, **options: Any) -> None:
        image = self._find(name).spec.image
        with self._count:
            self.starts.append(image)
        if self.refusal is not None and image.startswith(self.refuses):
            raise self.refusal
        super().start(name, **options)


@pytest.fixture(autouse=True)
def quick(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten intervals, and have supervisors start threads of their own."""
    workers.set_intervals(
        worker={"tick": QUICK}, run={"retries": (QUICK,)}, claim={"start_pause": QUICK, "start_pause_max": QUICK}
    )
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)  # then supervisors have threads of their own


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    engine.images |= {f"image-{number}:latest": engine.images["alpine:latest"] for number in range(4)}
    yield engine
    engine.close()


def run(workers: Workers, **values: Any) -> None:
    """Start a worker whose threads claim jobs whenever there are any."""
    workers.another(worker_threads=4, **values)


@pytest.mark.parametrize("images", [("image-0", "image-1"), ("alpine", "alpine", "alpine")], ids=["two images", "three jobs"])
def test_a_node_that_starts_nothing_fails_no_job(
    engine: Engine,
    workers: Workers,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    images: tuple[str, ...],
) -> None:
    # Given an engine that refuses every start
    monkeypatch.setattr("jobs.start_breaker._MAX_ATTEMPTS", 1000)
    engine.refusal = StartRefused(OLD_RUNC, "the engine could not start the container")
    jobs = jobs_of(*images)

    # When it has jobs to run
    run(workers)
    wait_for(node_refuses, 10, "the node to notice")

    # I expect `/readyz` and the log to report it, and the jobs to wait
    status, message = readiness(client)
    assert (status, "containers fail to start on node" in message) == (503, True)
    assert OLD_RUNC not in message
    assert OLD_RUNC in caplog.text
    wait_for(lambda: not Job.objects.exclude(node=None).exists() or None, 10, "the jobs to be requeued")
    late = make_job(image="image-2")
    assert "a node that can start containers" in str(waiting_for(late))

    # And all to run when the engine starts containers again
    engine.refusal = None
    for job in [*jobs, late]:
        assert completed(job).status == State.COMPLETED
    assert node_refuses() is None
    assert readiness(client)[0] == 200
    assert engine.list({}) == [] or wait_for(lambda: not engine.list({}), 10)


def test_a_job_waits_while_the_engine_reports_trouble(engine: Engine, workers: Workers, client: Client) -> None:
    # Given an engine that reports that it is itself at fault, and one job
    engine.refusal = EngineInTrouble("no space left on device")
    job = make_job()

    # When the job is tried more often than one that may be at fault itself
    run(workers)
    wait_for(node_refuses, 10, "the node to notice")
    wait_for(lambda: len(engine.starts) > 8, 20, "more tries")

    # I expect it to wait, and to run when the engine has recovered
    assert readiness(client)[0] == 503
    engine.refusal = None
    assert completed(job).status == State.COMPLETED


def test_jobs_at_fault_fail_at_once(engine: Engine, workers: Workers) -> None:
    # Given jobs of several images whose user does not exist
    engine.refusal = StartFailed("unable to find user x: no matching entries in passwd file")
    jobs = jobs_of("image-0", "image-1", "image-2", "image-3")

    # When they are started
    workers.another().run_jobs()

    # I expect
    assert {completed(job).reason for job in jobs} == {Reason.START_FAILED}
    assert len(engine.starts) == len(jobs)
    assert node_refuses() is None


def test_a_job_that_alone_is_refused_fails_after_a_few_tries(engine: Engine, workers: Workers) -> None:
    # Given a job that the engine cannot start for an unknown reason
    engine.refusal = StartRefused("words of the engine", "a reason of its own")
    job = make_job()

    # When it is tried
    run(workers)

    # I expect it to fail with the engine's message, and the next job to run
    job = completed(job)
    assert (job.status, job.reason, job.error) == (State.FAILED, Reason.START_FAILED, "a reason of its own")
    assert len(engine.starts) == 5
    engine.refusal = None
    assert completed(make_job()).status == State.COMPLETED


def test_jobs_of_an_image_that_never_starts_fail(engine: Engine, workers: Workers) -> None:
    # Given several jobs of one image that cannot be started for an unknown reason
    engine.refusal = StartRefused("words of the engine", "a reason of its own")
    jobs = jobs_of("image-0", "image-0", "image-0")

    # When they are tried again and again
    run(workers)

    # I expect them to fail
    assert {completed(job).reason for job in jobs} == {Reason.START_FAILED}


def test_jobs_that_never_start_fail_if_others_start(engine: Engine, workers: Workers) -> None:
    # Given jobs of two images that cannot be started for an unknown reason
    engine.refusal, engine.refuses = StartRefused("words of the engine", "a reason of its own"), "image-"
    bad = jobs_of("image-0", "image-1")
    run(workers)

    # When the node gets other jobs, which do start, whenever it is closed
    def have_ended() -> bool:
        if node_refuses():
            assert completed(make_job()).status == State.COMPLETED
        return not Job.objects.filter(pk__in=[job.pk for job in bad], completed_at=None).exists()

    wait_for(have_ended, 30, "the jobs that cannot be started to end")

    # I expect each job to end as it would alone
    assert {completed(job).reason for job in bad} == {Reason.START_FAILED}
    assert completed(make_job()).status == State.COMPLETED


def test_a_job_waiting_for_its_node_can_be_cancelled(engine: Engine, workers: Workers) -> None:
    # Given
    engine.refusal = StartRefused(OLD_RUNC, "the engine could not start the container")
    jobs = jobs_of("image-0", "image-1")
    run(workers)
    wait_for(node_refuses, 10, "the node to notice")

    # When
    for job in jobs:
        services.cancel(job.id)

    # I expect
    assert {completed(job).status for job in jobs} == {State.CANCELLED}


def test_a_worker_killed_while_requeueing_loses_no_job(engine: Engine, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that dies after a refused start and before it requeues the job
    def die(*_: object) -> None:
        raise Killed

    engine.refusal = StartRefused(OLD_RUNC, "the engine could not start the container")
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: True)  # no thread but this one
    first = workers.another()
    refuse(first.node, "image-0")
    job = make_job(image="image-1")
    with monkeypatch.context() as patched:
        patched.setattr(lifecycle, "requeue", die)
        with pytest.raises(Killed):
            first.run_jobs()
    engine.refusal = None
    monkeypatch.setattr("jobs.worker.supervisor.hint", lambda *_: False)

    # When another worker continues
    sign_off(first._heartbeat.worker_id)
    run(workers)

    # I expect
    assert completed(job).status == State.COMPLETED
