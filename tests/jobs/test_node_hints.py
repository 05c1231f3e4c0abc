"""Which node's workers hear of a new job."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from callbacks import delivery_hints
from jobs.models import Node
from jobs.node_hints import LEFTOVERS_ACTOR, RUN_ACTOR, queue_of
from orchestrator_site.base.broker import backlog, broker
from tests.helpers.factories import make_job, make_node

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with a heartbeat and free capacity, and a queue without messages."""
    node = make_node(cpus=2, overcommit=1, memory_mib=1024)
    broker.declare_queue(queue_of(node.pk))
    broker.flush_all()
    yield node
    broker.flush_all()


def test_a_node_with_free_capacity_gets_a_hint(node: Node) -> None:
    make_job(cpu_millis=1000, memory_mib=1024)
    assert backlog(queue_of(node.pk)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"seen_at": None},
        {"seen_at": Now() - timedelta(seconds=31)},
        {"cpu_millis": 500},
        {"cpu_millis_reserved": F("cpu_millis_total") - 999},
        {"memory_mib_reserved": 1},
        {"next_start_at": Now()},
    ],
    ids=["no heartbeat", "old heartbeat", "too few cores", "cpu reserved", "memory reserved", "starts fail"],
)
def test_a_node_that_cannot_run_the_job_gets_no_hint(node: Node, changes: dict[str, Any]) -> None:
    Node.objects.filter(pk=node.pk).update(**changes)
    make_job(cpu_millis=1000, memory_mib=1024)
    assert backlog(queue_of(node.pk)) == 0


def test_the_node_with_the_fewest_reserved_cores_gets_the_hint(node: Node) -> None:
    Node.objects.filter(pk=node.pk).update(cpu_millis_reserved=1)
    other = make_node("other")
    broker.declare_queue(queue_of(other.pk))
    make_job(cpu_millis=1000, memory_mib=64)
    assert (backlog(queue_of(node.pk)), backlog(queue_of(other.pk))) == (0, 1)


def test_messages_are_understood_by_processes_of_earlier_releases() -> None:
    names = (queue_of(7), RUN_ACTOR, LEFTOVERS_ACTOR, delivery_hints.QUEUE, delivery_hints.ACTOR)
    assert names == ("jobs.7", "run_jobs", "sweep_containers", "deliveries", "deliver")
