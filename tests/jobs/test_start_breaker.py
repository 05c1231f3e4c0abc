"""A node on which every start fails is closed, and tries again after a pause."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from jobs import lifecycle, start_breaker
from jobs.api.waiting_reason import waiting_for
from jobs.errors import OwnershipLost
from jobs.models import Job, Node
from jobs.running import claiming
from tests.helpers.factories import claimed, make_job, make_node, make_worker

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = 0.05  # seconds
OLD_RUNC = 'namespace {"time" ""} does not exist'


def jobs_of(*images: str, **values: Any) -> list[Job]:
    return [make_job(image=image, **values) for image in images]


def node_refuses() -> Node | None:
    return Node.objects.filter(next_start_at__isnull=False).first()


def readiness(client: Client) -> tuple[int, str]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()["checks"]["engine"]["message"]


# -- the rule ------------------------------------------------------------------------------------------------


def refuse(node: Node, *images: str, words: tuple[str, ...] = ()) -> list[start_breaker.Verdict]:
    """Let the node claim jobs of these images, and report that the start of each failed."""
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


def test_a_closed_node_accepts_one_job_after_each_pause() -> None:
    # Given a node that has refused jobs of two images, and more jobs that wait
    node = make_node(cpus=64)
    refuse(node, "image-0", "image-1")
    jobs_of("image-2", "image-3")
    worker = make_worker(node)

    # I expect it to accept none before its pause is over, and then one
    assert 0 < seconds_to_next(node) <= 5
    assert claiming.claim(node.pk, worker) is None
    assert not claiming.has_work(node.pk)
    is_due(node)
    probe = claiming.claim(node.pk, worker)
    assert probe is not None
    assert claiming.claim(node.pk, worker) is None

    # And a longer pause after each failure
    start_breaker.record_failure(probe.uuid, probe.guard, node.pk, OLD_RUNC)
    assert 5 < seconds_to_next(node) <= 10
    lifecycle.requeue(probe)

    # And all that fit after a successful start
    is_due(node)
    probe = claiming.claim(node.pk, worker)
    assert probe is not None
    lifecycle.started(probe, Job.objects.get(uuid=probe.uuid).created_at)
    assert claiming.claim(node.pk, worker) is not None


def test_earlier_starts_do_not_lengthen_the_pause() -> None:
    node = make_node(cpus=64)

    refuse(node, *[f"image-{number}" for number in range(10)])

    assert seconds_to_next(node) <= 5


def test_a_closed_node_tries_another_image_first() -> None:
    # Given a node that has refused two images, an older job of one of them, and a younger one of a third
    node = make_node(cpus=64)
    refuse(node, "image-0", "image-1")
    _, other = jobs_of("image-0", "image-2")
    is_due(node)

    # When it claims a job
    probe = claiming.claim(node.pk, make_worker(node))

    # I expect
    assert probe is not None
    assert probe.uuid == other.uuid


def test_another_node_accepts_the_jobs_of_a_closed_one() -> None:
    # Given two nodes, one of which is closed
    node, other = make_node("n1", cpus=64), make_node("n2", cpus=64)
    refuse(node, "image-0", "image-1")
    job = make_job()

    # I expect
    assert waiting_for(job) == "free capacity on a node"
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
def test_failures_that_may_be_the_jobs_fault_close_no_node(words: tuple[str, ...], images: tuple[str, ...]) -> None:
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


def test_a_job_with_another_owner_is_not_recorded() -> None:
    node = make_node(cpus=64)
    job = make_job()
    claim = claimed(job, node)
    Job.objects.filter(pk=job.pk).update(claims=7)

    with pytest.raises(OwnershipLost):
        start_breaker.record_failure(job.uuid, claim.guard, node.pk, OLD_RUNC)

    assert Node.objects.get().start_refused is None


def test_failures_on_a_closed_node_do_not_count_elsewhere() -> None:
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


def test_messages_are_stored_without_invalid_characters() -> None:
    node = make_node(cpus=64)

    refuse(node, "image-0", words=("cut\x00 and \ud800",))

    assert Node.objects.get().start_refusal == "cut� and ?"


@given(st.text("0123456789abcdef", min_size=12, max_size=64).filter(lambda text: any(c.isdigit() for c in text)), st.integers(0))
def test_messages_that_differ_in_ids_are_the_same(container: str, number: int) -> None:
    said = "container {} (pid {}): cannot set up namespace"

    assert start_breaker._is_same(said.format(container, number), said.format("0" * 64, 1))
    assert not start_breaker._is_same(said.format(container, number), "cannot mount proc")
