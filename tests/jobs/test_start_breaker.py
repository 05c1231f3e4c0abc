"""A node on which every start fails: it accepts no more jobs, and tries again. A job that is at fault itself fails."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from jobs import lifecycle, services, start_breaker
from jobs.api.waiting_reason import waiting_for
from jobs.errors import EngineInTrouble, OwnershipLost, StartFailed, StartRefused
from jobs.maintenance.dead_workers import sign_off
from jobs.models import Job, Node
from jobs.running import claiming
from jobs.states import Reason, State
from tests.fake_engine import FakeEngine
from tests.helpers.factories import claimed, make_job, make_node, make_worker
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = 0.05  # seconds
OLD_RUNC = 'namespace {"time" ""} does not exist'


class Engine(FakeEngine):
    """One that can refuse every start."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal: Exception | None = None
        self.refuses = ""  # what the images that it refuses begin with
        self.starts: list[str] = []  # images
        self._count = threading.Lock()

    def start(self, name: str) -> None:
        image = self._find(name).spec.image
        with self._count:
            self.starts.append(image)
        if self.refusal is not None and image.startswith(self.refuses):
            raise self.refusal
        super().start(name)


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


def jobs_of(*images: str, **values: Any) -> list[Job]:
    return [make_job(image=image, **values) for image in images]


def run(workers: Workers, **values: Any) -> None:
    """A worker whose threads take what there is, whenever there is some."""
    workers.another(worker_threads=4, **values)


def node_refuses() -> Node | None:
    return Node.objects.filter(next_start_at__isnull=False).first()


def readiness(client: Client) -> tuple[int, str]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()["checks"]["engine"]["message"]


@pytest.mark.parametrize("images", [("image-0", "image-1"), ("alpine", "alpine", "alpine")], ids=["two images", "three jobs"])
def test_a_node_that_starts_nothing_says_so_ends_no_job_and_goes_on_once_it_starts_one(
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

    # When it is given jobs
    run(workers)
    wait_for(node_refuses, 10, "the node to notice")

    # I expect it to tell everybody, and the jobs to wait
    status, message = readiness(client)
    assert (status, "containers fail to start on node" in message) == (503, True)
    assert OLD_RUNC not in message
    assert OLD_RUNC in caplog.text
    wait_for(lambda: not Job.objects.exclude(node=None).exists() or None, 10, "the jobs to be put back")
    late = make_job(image="image-2")
    assert "a node that can start containers" in str(waiting_for(late))

    # And all to run when the engine is well again
    engine.refusal = None
    for job in [*jobs, late]:
        assert completed(job).status == State.COMPLETED
    assert node_refuses() is None
    assert readiness(client)[0] == 200
    assert engine.list({}) == [] or wait_for(lambda: not engine.list({}), 10)


def test_a_job_waits_for_as_long_as_its_engine_says_that_it_is_in_trouble(
    engine: Engine, workers: Workers, client: Client
) -> None:
    # Given an engine that says of itself that it can start nothing, and one job
    engine.refusal = EngineInTrouble("no space left on device")
    job = make_job()

    # When it is tried, more often than one that may be at fault itself
    run(workers)
    wait_for(node_refuses, 10, "the node to notice")
    wait_for(lambda: len(engine.starts) > 8, 20, "more tries")

    # I expect it to wait, and to run when there is room
    assert readiness(client)[0] == 503
    engine.refusal = None
    assert completed(job).status == State.COMPLETED


def test_jobs_that_are_at_fault_themselves_end_at_once_and_close_no_node(engine: Engine, workers: Workers) -> None:
    # Given jobs of several images whose user does not exist
    engine.refusal = StartFailed("unable to find user x: no matching entries in passwd file")
    jobs = jobs_of("image-0", "image-1", "image-2", "image-3")

    # When they are started
    workers.another().run_jobs()

    # I expect
    assert {completed(job).reason for job in jobs} == {Reason.START_FAILED}
    assert len(engine.starts) == len(jobs)
    assert node_refuses() is None


def test_a_job_that_alone_is_refused_ends_after_a_few_tries(engine: Engine, workers: Workers) -> None:
    # Given a job that the engine cannot start, for a reason that nobody knows
    engine.refusal = StartRefused("words of the engine", "a reason of its own")
    job = make_job()

    # When it is tried
    run(workers)

    # I expect it to end with these words, and the next job to be taken
    job = completed(job)
    assert (job.status, job.reason, job.error) == (State.FAILED, Reason.START_FAILED, "a reason of its own")
    assert len(engine.starts) == 5
    engine.refusal = None
    assert completed(make_job()).status == State.COMPLETED


def test_jobs_of_one_image_that_never_starts_end_in_the_end(engine: Engine, workers: Workers) -> None:
    # Given several jobs of one image that cannot be started, for a reason that nobody knows
    engine.refusal = StartRefused("words of the engine", "a reason of its own")
    jobs = jobs_of("image-0", "image-0", "image-0")

    # When they are tried, again and again
    run(workers)

    # I expect them not to wait for ever
    assert {completed(job).reason for job in jobs} == {Reason.START_FAILED}


def test_jobs_of_several_images_that_never_start_end_where_others_do(engine: Engine, workers: Workers) -> None:
    # Given jobs of two images that cannot be started, for a reason that nobody knows
    engine.refusal, engine.refuses = StartRefused("words of the engine", "a reason of its own"), "image-"
    bad = jobs_of("image-0", "image-1")
    run(workers)

    # When others, that can be, come to the node whenever it is closed
    def have_ended() -> bool:
        if node_refuses():
            assert completed(make_job()).status == State.COMPLETED
        return not Job.objects.filter(pk__in=[job.pk for job in bad], completed_at=None).exists()

    wait_for(have_ended, 30, "the jobs that cannot be started to end")

    # I expect each to have become what it would alone
    assert {completed(job).reason for job in bad} == {Reason.START_FAILED}
    assert completed(make_job()).status == State.COMPLETED


def test_a_job_that_waits_for_its_node_is_cancelled(engine: Engine, workers: Workers) -> None:
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


def test_a_worker_that_is_killed_as_it_puts_a_job_back_loses_no_job(
    engine: Engine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that dies between a refused start and giving back its job
    class Killed(BaseException):
        pass

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

    # When another goes on
    sign_off(first._heartbeat.worker_id)
    run(workers)

    # I expect
    assert completed(job).status == State.COMPLETED


# -- the rule ------------------------------------------------------------------------------------------------


def refuse(node: Node, *images: str, words: tuple[str, ...] = ()) -> list[start_breaker.Verdict]:
    """Jobs of these images are taken by the node, and then the start of each fails."""
    claims = [claimed(make_job(image=image), node) for image in images]
    said = words or (OLD_RUNC,) * len(claims)
    return [
        start_breaker.record_failure(claim.uuid, claim.guard, node.pk, text) for claim, text in zip(claims, said, strict=True)
    ]


def is_due(node: Node) -> None:
    Node.objects.filter(pk=node.pk).update(next_start_at=Now() - timedelta(seconds=1))


def seconds_to_next(node: Node) -> float:
    node = Node.objects.annotate(now=Now()).get(pk=node.pk)
    assert node.next_start_at is not None
    return (node.next_start_at - node.now).total_seconds()  # type: ignore[attr-defined, no-any-return]


def test_a_node_that_refuses_takes_one_job_after_each_pause() -> None:
    # Given a node that has refused jobs of two images, and more jobs that wait
    node = make_node(cpus=64)
    refuse(node, "image-0", "image-1")
    jobs_of("image-2", "image-3")
    worker = make_worker(node)

    # I expect it to take none before its pause is over, and then one
    assert 0 < seconds_to_next(node) <= 5
    assert claiming.claim(node.pk, worker) is None
    assert not claiming.has_work(node.pk)
    is_due(node)
    probe = claiming.claim(node.pk, worker)
    assert probe is not None
    assert claiming.claim(node.pk, worker) is None

    # And a longer pause after each that fails
    start_breaker.record_failure(probe.uuid, probe.guard, node.pk, OLD_RUNC)
    assert 5 < seconds_to_next(node) <= 10
    lifecycle.requeue(probe)

    # And all that fit after one that is started
    is_due(node)
    probe = claiming.claim(node.pk, worker)
    assert probe is not None
    lifecycle.started(probe, Job.objects.get(uuid=probe.uuid).created_at)
    assert claiming.claim(node.pk, worker) is not None


def test_failures_of_jobs_that_were_under_way_make_no_pause_longer() -> None:
    node = make_node(cpus=64)

    refuse(node, *[f"image-{number}" for number in range(10)])

    assert seconds_to_next(node) <= 5


def test_a_node_tries_a_job_of_another_image_first() -> None:
    # Given a node that has refused two images, and an older job of one of them beside one of a third
    node = make_node(cpus=64)
    refuse(node, "image-0", "image-1")
    _, other = jobs_of("image-0", "image-2")
    is_due(node)

    # When it takes a job
    probe = claiming.claim(node.pk, make_worker(node))

    # I expect
    assert probe is not None
    assert probe.uuid == other.uuid


def test_another_node_takes_what_one_refuses() -> None:
    # Given two nodes, one of which starts nothing
    node, other = make_node("n1", cpus=64), make_node("n2", cpus=64)
    refuse(node, "image-0", "image-1")
    job = make_job()

    # I expect
    assert waiting_for(job) == "room on a node"
    assert claiming.claim(node.pk, make_worker(node)) is None
    assert claiming.claim(other.pk, make_worker(other)) is not None


def test_ready_while_another_node_starts_containers(client: Client) -> None:
    node = make_node("n1", cpus=64)
    refuse(node, "image-0", "image-1")
    make_node("n2")

    status, message = readiness(client)

    assert status == 200
    assert "containers fail to start on n1" in message


@pytest.mark.parametrize(
    ("words", "images"),
    [
        pytest.param(("one", "two", "three", "four"), ("image-0", "image-1", "image-2", "image-3"), id="in different words"),
        pytest.param(("one", "one"), ("image-0", "image-0"), id="of two jobs of one image"),
    ],
)
def test_failures_that_may_be_the_jobs_own_close_no_node(words: tuple[str, ...], images: tuple[str, ...]) -> None:
    node = make_node(cpus=64)

    assert set(refuse(node, *images, words=words)) == {"retry"}

    assert node_refuses() is None


def test_failures_with_a_start_between_them_close_no_node() -> None:
    node = make_node(cpus=64)
    refuse(node, "image-0")
    between = make_job()
    lifecycle.started(claimed(between, node), between.created_at)

    assert refuse(node, "image-1") == ["retry"]
    assert node_refuses() is None


def test_a_job_that_is_not_ours_any_more_says_nothing_of_the_node() -> None:
    node = make_node(cpus=64)
    job = make_job()
    claim = claimed(job, node)
    Job.objects.filter(pk=job.pk).update(claims=7)

    with pytest.raises(OwnershipLost):
        start_breaker.record_failure(job.uuid, claim.guard, node.pk, OLD_RUNC)

    assert Node.objects.get().start_refused is None


def test_a_job_that_one_broken_node_refused_is_not_given_up_at_once_by_another() -> None:
    # Given a job that a closed node has refused again and again
    node, other = make_node("n1", cpus=64), make_node("n2", cpus=64)
    refuse(node, "image-0")
    claim = claimed(make_job(image="image-1"), node)
    verdicts = {start_breaker.record_failure(claim.uuid, claim.guard, node.pk, OLD_RUNC) for _ in range(10)}
    assert verdicts == {"requeue"}
    lifecycle.requeue(claim)

    # When another node cannot start it
    second = claimed(Job.objects.get(uuid=claim.uuid), other)

    # I expect
    assert start_breaker.record_failure(second.uuid, second.guard, other.pk, OLD_RUNC) == "retry"


def test_words_that_no_database_takes_are_written_down_without_them() -> None:
    node = make_node(cpus=64)

    refuse(node, "image-0", words=("cut\x00 and \ud800",))

    assert Node.objects.get().start_refusal == "cut� and ?"


@given(st.text("0123456789abcdef", min_size=12, max_size=64).filter(lambda text: any(c.isdigit() for c in text)), st.integers(0))
def test_ids_and_numbers_make_no_other_words(container: str, number: int) -> None:
    said = "container {} (pid {}): cannot set up namespace"

    assert start_breaker._is_same(said.format(container, number), said.format("0" * 64, 1))
    assert not start_breaker._is_same(said.format(container, number), "cannot mount proc")
