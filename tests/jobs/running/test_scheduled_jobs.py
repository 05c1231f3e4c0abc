"""The steps of one job on a cluster, which starts containers on its own time; on a fake that schedules."""

import threading
import time
from typing import Any

import pytest

from jobs import services
from jobs.engine.protocol import RunSpec
from jobs.errors import ContainerNotFound, EngineUnavailable, ImageUnavailable, StartFailed, StartRefused
from jobs.models import Node
from jobs.spec import OutputSpec
from jobs.states import OutputType, Reason, State
from tests.fake_engine import SchedulingEngine
from tests.helpers.factories import make_job
from tests.helpers.fake_clusters import NO_CPU, NO_MEMORY, container_of, waits_for
from tests.helpers.job_checks import event_types, file_input, stored_log, wait_until_removed
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = pytest.mark.django_db(transaction=True)

OUT = OutputSpec(id="out", type=OutputType.EVENT, path="out")
STAYS = "exec sleep 60"


@pytest.fixture
def engine(cluster: SchedulingEngine) -> SchedulingEngine:
    return cluster


@pytest.fixture
def specs(engine: SchedulingEngine, monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """What was asked of the engine."""
    created: list[RunSpec] = []
    create = engine.create
    monkeypatch.setattr(engine, "create", lambda spec: created.append(spec) or create(spec))
    return created


def fill_at_start(engine: SchedulingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cluster be full when a container is to start, but not before, when its inputs are put in."""
    start = engine.start

    def start_late(name: str, **options: Any) -> None:
        engine.full_because = NO_CPU
        monkeypatch.setattr(engine, "start", start)
        start(name, **options)

    monkeypatch.setattr(engine, "start", start_late)


def test_a_job_runs_to_its_end(engine: SchedulingEngine, workers: Workers) -> None:
    job = make_job(command="cat in; cp in out", inputs=(file_input("in", b"hello\n"),), outputs=(OUT,))

    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.exit_code, stored_log(job)) == (State.COMPLETED, 0, ["hello"])
    assert event_types(job) == ["input", "start", "log", "exit", "output", "complete"]
    wait_until_removed(engine)


@pytest.mark.parametrize("files", [False, True], ids=["plain", "with files"])
def test_a_job_says_what_it_waits_for_in_the_words_of_the_scheduler(
    engine: SchedulingEngine, workers: Workers, files: bool
) -> None:
    # Given a full cluster: without files a job waits for its start, with files before they are put in
    engine.full_because = NO_CPU
    job = make_job(command="echo ran", inputs=(file_input("in", b""),) if files else ())
    workers.run(workers.another())
    waits_for(job, NO_CPU)

    # When it waits for something else
    engine.full_because = NO_MEMORY

    # I expect to be told, and the job to run as soon as there is room
    waits_for(job, NO_MEMORY)
    assert event_types(job) == []
    engine.full_because = ""
    assert stored_log(completed(job)) == ["ran"]


@pytest.mark.parametrize("files", [False, True], ids=["plain", "with files"])
def test_a_job_that_waits_is_cancelled(engine: SchedulingEngine, workers: Workers, files: bool) -> None:
    engine.full_because = NO_CPU
    job = make_job(inputs=(file_input("in", b""),) if files else (), outputs=(OUT,))
    workers.run(workers.another())
    waits_for(job, NO_CPU)

    services.cancel(job.id)

    job = completed(job)
    assert (job.status, job.exit_code, job.started_at) == (State.CANCELLED, -1, None)
    assert event_types(job) == ["exit", "complete"]
    wait_until_removed(engine)


def test_the_time_out_counts_from_the_start_of_the_container(engine: SchedulingEngine, workers: Workers) -> None:
    # Given a job that waits for longer than it may run
    engine.full_because = NO_CPU
    job = make_job(command="sleep 0.3; echo ran", timeout_seconds=1)
    began = time.monotonic()
    workers.run(workers.another())
    waits_for(job, NO_CPU)
    wait_for(lambda: time.monotonic() - began > 1.2, what="the time to be up")

    # When it starts, I expect it to have all its time
    engine.full_because = ""
    assert stored_log(completed(job)) == ["ran"]
    assert job.status == State.COMPLETED


def test_a_time_out_ends_the_process(engine: SchedulingEngine, workers: Workers) -> None:
    job = make_job(command=STAYS, timeout_seconds=1)
    workers.another().run_jobs()
    assert completed(job).reason == Reason.TIMEOUT
    wait_until_removed(engine)


@pytest.mark.parametrize("files", [False, True], ids=["plain", "with files"])
def test_a_job_whose_container_was_removed_before_it_ran_is_run_again(
    engine: SchedulingEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, files: bool
) -> None:
    # Given a job that waits for its start
    fill_at_start(engine, monkeypatch)
    job = make_job(command="echo ran", inputs=(file_input("in", b""),) if files else ())
    workers.run(workers.another())
    waits_for(job, NO_CPU)

    # When the cluster removes the container
    name = container_of(engine, job)
    engine.remove(name, force=True)

    # I expect another one to wait, and to run
    wait_for(lambda: name in [seen.name for seen in engine.list({})], 10, "another container")
    waits_for(job, NO_CPU)
    engine.full_because = ""
    job = completed(job)
    assert (job.status, job.claims, stored_log(job)) == (State.COMPLETED, 1, ["ran"])
    assert event_types(job) == [*(["input"] if files else []), "start", "log", "exit", "complete"]


@pytest.mark.parametrize("files", [False, True], ids=["plain", "with files"])
@pytest.mark.parametrize("answers", [True, False], ids=["at once", "after an outage"])
def test_a_job_whose_start_has_failed_on_a_host_is_started_again(
    engine: SchedulingEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch, answers: bool, files: bool
) -> None:
    # Given a job that waits for its start
    fill_at_start(engine, monkeypatch)
    job = make_job(command="echo ran", inputs=(file_input("in", b""),) if files else ())
    workers.run(workers.another())
    waits_for(job, NO_CPU)
    specs: list[RunSpec] = []
    create = engine.create

    def create_late(spec: RunSpec) -> None:
        specs.append(spec)
        engine.remove(spec.name)
        if not answers and len(specs) == 1:
            raise EngineUnavailable("the API server does not answer")
        create(spec)

    monkeypatch.setattr(engine, "create", create_late)

    # When its host cannot start the container, which may be the job's fault or the host's
    engine.fail_start(container_of(engine, job), StartRefused("context canceled", "the cluster could not start the container"))
    engine.full_because = ""

    # I expect another one to run
    job = completed(job)
    assert (job.status, job.claims, stored_log(job)) == (State.COMPLETED, 1, ["ran"])
    assert event_types(job) == [*(["input"] if files else []), "start", "log", "exit", "complete"]
    assert len(specs) == (1 if answers else 2)


def test_a_job_whose_container_is_gone_when_it_has_started_is_not_run_again(
    engine: SchedulingEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a container that is removed between the end of the wait and the first look
    job = make_job(command="echo ran", outputs=(OUT,))
    wait = engine.wait_until_started

    def wait_and_remove(name: str, *args: Any) -> None:
        wait(name, *args)
        engine.remove(name, force=True)

    monkeypatch.setattr(engine, "wait_until_started", wait_and_remove)

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.status, job.reason, job.error, job.claims) == (State.FAILED, Reason.ENGINE_LOST, "the container is gone", 1)
    assert event_types(job) == ["exit", "complete"]


def test_a_job_whose_container_is_gone_after_the_request_for_its_start_is_not_run_again(
    engine: SchedulingEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a container that is removed, and an engine that does not say whether it has run before
    job = make_job(command="echo ran")

    def remove(name: str, *_: Any) -> None:
        engine.remove(name, force=True)
        raise EngineUnavailable("the API server does not answer")

    monkeypatch.setattr(engine, "wait_until_started", remove)

    # When
    workers.another().run_jobs()

    # I expect
    job = completed(job)
    assert (job.reason, job.error, job.claims) == (Reason.ENGINE_LOST, "the container is gone", 1)


@pytest.mark.parametrize(
    ("how", "reason", "error"),
    [
        ("lose", Reason.ENGINE_LOST, "the node n1 went away"),
        ("evict", Reason.DISK, "the pod wrote more than 10Gi"),
    ],
)
def test_a_job_that_the_cluster_ends_says_why_in_its_words(
    engine: SchedulingEngine, workers: Workers, how: str, reason: Reason, error: str
) -> None:
    job = make_job(command=STAYS)
    workers.run(workers.another())
    running(job)

    getattr(engine, how)(container_of(engine, job), error)

    job = completed(job)
    assert (job.status, job.reason, job.error) == (State.FAILED, reason, error)
    assert job.exit_code == (-1 if how == "lose" else 137)
    wait_until_removed(engine)


def test_a_job_whose_container_is_removed_while_it_runs_is_lost(engine: SchedulingEngine, workers: Workers) -> None:
    job = make_job(command=STAYS)
    workers.run(workers.another())
    running(job)

    engine.remove(container_of(engine, job), force=True)

    assert completed(job).reason == Reason.ENGINE_LOST


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ImageUnavailable("there is no such image"), Reason.IMAGE_PULL), (StartFailed("no such user"), Reason.START_FAILED)],
)
@pytest.mark.parametrize("call", ["prepare", "wait_until_started"])
def test_a_start_that_fails_later_fails_the_job(
    engine: SchedulingEngine, workers: Workers, call: str, error: Exception, reason: Reason
) -> None:
    engine.fail_next(call, error)
    job = make_job()

    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.reason, job.error) == (State.FAILED, reason, str(error))
    wait_until_removed(engine)


@pytest.mark.parametrize(
    ("call", "error", "made"),
    [
        ("wait_until_started", EngineUnavailable("the API server does not answer"), 1),
        ("wait_until_started", ContainerNotFound("it was renamed"), 1),
        ("prepare", EngineUnavailable("the API server does not answer"), 1),
        ("prepare", ContainerNotFound("the pod was removed"), 2),
    ],
)
def test_a_wait_that_is_broken_off_goes_on(
    engine: SchedulingEngine, workers: Workers, specs: list[RunSpec], call: str, error: Exception, made: int
) -> None:
    # Given a cluster that does not answer while a job waits
    engine.full_because = NO_CPU
    engine.fail_next(call, error)
    job = make_job(command="echo ran", inputs=(file_input("in", b""),) if call == "prepare" else ())

    # When it answers again
    workers.run(workers.another())
    waits_for(job, NO_CPU)
    engine.full_because = ""

    # I expect the same container to have run, if it was there
    assert stored_log(completed(job)) == ["ran"]
    assert len(specs) == made


def test_the_engine_is_told_what_the_job_may_and_needs(workers: Workers, specs: list[RunSpec]) -> None:
    make_job(timeout_seconds=77, outputs=(OUT,))
    workers.another(disk_limit=123 * 1024**2).run_jobs()

    (spec,) = specs
    assert (spec.timeout_seconds, spec.disk_limit_bytes, spec.has_inputs, spec.has_outputs) == (77, 123 * 1024**2, False, True)


def test_an_engine_that_limits_the_disk_is_never_asked_what_jobs_have_written(
    engine: SchedulingEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that would look all the time
    asked: list[str] = []
    monkeypatch.setattr(engine, "disk_use", lambda name, **_: asked.append(name))
    monkeypatch.setattr(engine, "disk_space", lambda: asked.append("space"))
    workers.set_intervals(disk={"look": 0.01})

    # When jobs that have written too much end in either way
    supervisor = workers.another(disk_limit=1024**2)
    jobs = [make_job(command=f"dd if=/dev/zero of=file bs=1M count=4; sleep 0.2; exit {code}") for code in (0, 3)]
    supervisor.run_jobs()

    # I expect the limit to be the engine's alone
    assert [completed(job).reason for job in jobs] == ["", Reason.EXIT_CODE]
    assert asked == []
    assert "disk watch" not in [thread.name for thread in threading.enumerate()]


def test_what_jobs_reserve_in_a_cluster_is_counted_and_not_limited(engine: SchedulingEngine, workers: Workers) -> None:
    # Given more jobs than all hosts could run at once
    jobs = [make_job(command=STAYS, cpu_millis=8000, memory_mib=8 * 1024) for _ in range(5)]
    supervisor = workers.another(worker_threads=8)
    for _ in jobs:
        workers.run(supervisor)

    # I expect the cluster to get all of them
    for job in jobs:
        running(job)
    node = Node.objects.get()
    assert (node.cpu_millis_reserved, node.memory_mib_reserved) == (5 * 8000, 5 * 8 * 1024)
    for job in jobs:
        services.cancel(job.id)
        completed(job)
    wait_until_removed(engine)
