"""A drained node takes no new jobs until that is undone; those that it has go on."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db.models.functions import Now
from django.test import Client

from jobs import draining, node_hints
from jobs.api.waiting_reason import waiting_for
from jobs.models import Job, Node
from jobs.node_hints import queue_of, send_hints
from jobs.running import claiming
from orchestrator_site.base.broker import broker
from tests.helpers.factories import claimed, make_job, make_node, make_worker
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def node() -> Iterator[Node]:
    send_pending_hints()  # of earlier tests
    node = make_node()
    broker.declare_queue(queue_of(node.pk))
    broker.flush_all()
    yield node
    send_pending_hints()
    broker.flush_all()


def send_pending_hints() -> None:
    """Wait until another thread has sent all hints. The first one for a node declares a queue."""
    node_hints._later._thread.submit(lambda: None).result()


def hints(node: Node) -> int:
    queue = queue_of(node.pk)
    return int(broker.queues[queue].qsize() if settings.CONFIGURATION.embedded else broker.do_qsize(queue))  # type: ignore[attr-defined]


def test_a_drained_node_claims_nothing_until_that_is_undone(node: Node) -> None:
    # Given a job that waits, and a node that is drained
    job = make_job()
    worker = make_worker(node)
    assert draining.drain(node.pk)

    # When its worker looks for work, I expect none
    assert not claiming.has_work(node.pk)
    assert claiming.claim(node.pk, worker) is None

    # When that is undone, I expect the job to be claimed
    assert draining.undrain(node.pk)
    claim = claiming.claim(node.pk, worker)
    assert claim is not None
    assert claim.uuid == job.uuid


def test_a_node_drained_between_the_look_and_the_claim_claims_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that has found a job
    job = make_job()
    worker = make_worker(node)
    look = claiming._look_for_work

    def then_drain(*arguments: Any) -> Any:
        work = look(*arguments)
        draining.drain(node.pk)
        return work

    # When the node is drained before it claims the job, I expect nothing claimed and nothing reserved
    monkeypatch.setattr(claiming, "_look_for_work", then_drain)
    assert claiming.claim(node.pk, worker) is None
    job.refresh_from_db()
    node.refresh_from_db()
    assert (job.owner_id, job.node_id, job.claims, node.cpu_millis_reserved) == (None, None, 0, 0)


def test_a_drained_node_with_failing_starts_tries_none(node: Node) -> None:
    # Given a drained node on which starts failed, and which is due to try one
    make_job()
    Node.objects.update(drained=True, next_start_at=Now() - timedelta(seconds=1), start_refused=[["image", "job"]])

    # I expect it to try none
    assert not claiming.has_work(node.pk)
    assert claiming.claim(node.pk, make_worker(node)) is None


def test_jobs_of_a_drained_node_are_adopted(node: Node) -> None:
    # Given a job that a worker of the node had claimed, and released
    job = make_job()
    claimed(job, node)
    Job.objects.update(owner=None)

    # When the node is drained, I expect the next worker to go on with it
    draining.drain(node.pk)
    claim = claiming.claim(node.pk, make_worker(node))
    assert claim is not None
    assert claim.uuid == job.uuid


def test_a_job_waits_for_a_node_that_is_not_drained(node: Node) -> None:
    # Given a drained node, and a smaller one that is not
    make_worker(node)
    make_node("small", memory_mib=128)
    draining.drain(node.pk)

    # I expect a job that only the drained one could hold to say so, and a small one to wait for its turn
    large = make_job(memory_mib=1024)
    assert waiting_for(large) == "a node that takes new jobs: an operator has drained all that are large enough"
    assert waiting_for(make_job()) == "1 job ahead"


def test_no_hint_goes_to_a_drained_node_and_one_when_that_is_undone(node: Node) -> None:
    # When a job comes while the node is drained, I expect no hint
    draining.drain(node.pk)
    send_hints([Job(cpu_millis=1000, memory_mib=64)])
    assert hints(node) == 0

    # When that is undone, I expect one
    draining.undrain(node.pk)
    wait_for(lambda: hints(node) == 1, what="the hint")


def test_readiness_names_drained_nodes(node: Node, client: Client) -> None:
    assert "drained" not in client.get("/readyz").content.decode()
    draining.drain(node.pk)
    answer = client.get("/readyz").json()["checks"]["engine"]
    assert answer == {"status": "healthy", "message": "heartbeat from node; drained: node"}


def test_draining_twice_changes_nothing(node: Node) -> None:
    assert [draining.drain(node.pk), draining.drain(node.pk)] == [True, False]
    assert [draining.undrain(node.pk), draining.undrain(node.pk)] == [True, False]
    assert not draining.drain(node.pk + 1)
