"""Which node's workers hear of a new job."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from django.db.models import F
from django.db.models.functions import Now

from jobs import node_hints
from jobs.models import Job, Node
from jobs.node_hints import LEFTOVERS_ACTOR, RUN_ACTOR, queue_of, send_hints
from orchestrator_site.base.broker import broker
from tests.helpers.factories import make_job, make_node
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with a heartbeat and free capacity, and a queue without messages."""
    node = make_node(cpus=2, overcommit=1, memory_mib=1024)
    broker.declare_queue(queue_of(node.pk))
    broker.flush_all()
    yield node
    broker.flush_all()


def backlog(queue: str) -> int:
    """Return how many messages of a queue are waiting or being processed."""
    return int(broker.queues[queue].qsize() if settings.CONFIGURATION.embedded else broker.do_qsize(queue))  # type: ignore[attr-defined]


def new_job(memory_mib: int = 64) -> Job:
    return Job(cpu_millis=1000, memory_mib=memory_mib)


def test_a_node_with_free_capacity_gets_a_hint(node: Node) -> None:
    # When a job is created, I expect a hint, which a thread sends after the commit
    make_job(cpu_millis=1000, memory_mib=1024)
    wait_for(lambda: backlog(queue_of(node.pk)) == 1, what="the hint")


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
    send_hints([new_job(memory_mib=1024)])
    assert backlog(queue_of(node.pk)) == 0


def test_the_node_with_the_fewest_reserved_cores_gets_the_hint(node: Node) -> None:
    Node.objects.filter(pk=node.pk).update(cpu_millis_reserved=1)
    other = make_node("other")
    broker.declare_queue(queue_of(other.pk))
    send_hints([new_job()])
    assert (backlog(queue_of(node.pk)), backlog(queue_of(other.pk))) == (0, 1)


def test_jobs_that_are_hinted_together_share_one_query_and_the_free_capacity(node: Node, django_assert_num_queries: Any) -> None:
    # Given two nodes, on each of which two of these jobs fit
    other = make_node("other", cpus=2, overcommit=1, memory_mib=1024)
    broker.declare_queue(queue_of(other.pk))

    # When there are hints for five jobs, I expect one for each that finds capacity
    with django_assert_num_queries(1):
        send_hints([new_job() for _ in range(5)])
    assert (backlog(queue_of(node.pk)), backlog(queue_of(other.pk))) == (2, 2)


def test_jobs_that_come_soon_after_another_share_one_look(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a thread that has sent a hint a moment ago
    looks, pausing, end_of_pause = [], threading.Event(), threading.Event()
    real = node_hints.healthy_nodes

    def look() -> Any:
        looks.append(1)
        return real()

    def pause(_seconds: float) -> None:
        pausing.set()
        end_of_pause.wait(10)

    monkeypatch.setattr(node_hints, "healthy_nodes", look)
    monkeypatch.setattr(node_hints, "time", SimpleNamespace(sleep=pause))
    make_job()
    assert pausing.wait(10)

    # When more jobs are created
    for _ in range(3):
        make_job()
    end_of_pause.set()

    # I expect a hint for all of those that find capacity, by one look
    wait_for(lambda: backlog(queue_of(node.pk)) == 3, what="the hints")
    assert len(looks) == 2


def test_hints_continue_after_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a query that fails once
    failed = threading.Event()
    real = node_hints.healthy_nodes

    def fail_once() -> Any:
        if not failed.is_set():
            failed.set()
            raise OperationalError("gone")
        return real()

    monkeypatch.setattr(node_hints, "healthy_nodes", fail_once)
    make_job()
    assert failed.wait(30)

    # When another job is created, I expect a hint
    make_job()
    wait_for(lambda: backlog(queue_of(node.pk)) == 1, what="the hint")


def test_messages_are_understood_by_processes_of_earlier_releases() -> None:
    names = (queue_of(7), RUN_ACTOR, LEFTOVERS_ACTOR)
    assert names == ("jobs.7", "run_jobs", "sweep_containers")
