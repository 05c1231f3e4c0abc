"""Whose job starts next on a node if several namespaces wait, and the limits of what each may use at once."""

import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import lifecycle
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.namespace_use import Use, use_of
from jobs.running import claiming
from jobs.states import State
from orchestrator_site.base.intervals import ClaimIntervals
from tests.helpers.factories import STARTED_AT, make_job, make_node, make_worker
from tests.helpers.keys import make_namespace

pytestmark = pytest.mark.django_db(transaction=True)
PASSED_OVER = timedelta(seconds=ClaimIntervals().passed_over + 1)


def claim_all(node: Node, worker: UUID | None = None) -> list[Claim]:
    worker = worker or make_worker(node)
    claims = []
    while claim := claiming.claim(node.pk, worker):
        claims.append(claim)
    return claims


def namespaces(claims: list[Claim]) -> list[str]:
    return [claim.job.namespace for claim in claims if claim.job]


def end(claim: Claim) -> None:
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=timezone.now())


# -- fairness ----------------------------------------------------------------------------------------------


def test_the_namespace_with_the_smallest_part_of_the_node_comes_first() -> None:
    # Given many jobs of one namespace, and then some of two others, of which one needs more memory than cpu
    node = make_node(cpus=8, overcommit=1, memory_mib=8000)
    for name in "abc":
        make_namespace(name)
    for name, memory, number in (("a", 100, 8), ("b", 2000, 3), ("c", 100, 3)):
        for _ in range(number):
            make_job(namespace=name, memory_mib=memory)

    # When all that fits is claimed, I expect turns by what each has reserved, the oldest first among equals
    assert "".join(namespaces(claim_all(node))) == "abcacabc"


def test_what_a_namespace_has_reserved_elsewhere_does_not_count() -> None:
    other, node = make_node("other"), make_node("node")
    for name in ("a", "b"):
        make_namespace(name)
    make_job(namespace="a")
    claim_all(other)
    make_job(namespace="a")
    make_job(namespace="b")
    assert namespaces(claim_all(node)) == ["a", "b"]


def test_a_job_that_was_passed_over_holds_back_other_namespaces() -> None:
    # Given a node that is half full, and an old job of another namespace that needs all of it
    node = make_node(cpus=2, overcommit=1)
    worker = make_worker(node)
    for name in ("a", "b"):
        make_namespace(name)
    make_job(namespace="a")
    [first] = claim_all(node, worker)
    large = make_job(namespace="b", cpu_millis=2000)
    make_job(namespace="a")
    Job.objects.filter(pk=large.pk).update(created_at=timezone.now() - PASSED_OVER)

    # I expect nothing to start before it, until its namespace may not start it
    assert claim_all(node, worker) == []
    make_namespace("b", max_cpu_millis=1000)
    assert namespaces(claim_all(node, worker)) == ["a"]
    end(first)


def test_the_cost_of_a_claim_does_not_grow_with_the_jobs_that_wait() -> None:
    make_namespace("a")
    node = make_node(cpus=64)
    costs = []
    for number in (2, 10):
        for _ in range(number):
            make_job(namespace="a")
        with CaptureQueriesContext(connection) as queries:
            claiming.claim(node.pk, make_worker(node))
        costs.append(len(queries))
    assert costs[1] <= costs[0]


# -- limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"max_running": 2}, {"max_cpu_millis": 2500}, {"max_memory_mib": 160}])
def test_a_job_over_a_limit_of_its_namespace_waits_for_another_to_end(limit: dict[str, int]) -> None:
    # Given a namespace that may run two jobs at once, on any node
    make_namespace("a", **limit)
    nodes = [make_node("one"), make_node("two")]
    for _ in range(4):
        make_job(namespace="a")
    claims = [claim for node in nodes for claim in claim_all(node)]
    assert len(claims) == 2
    assert not claiming.has_work(nodes[1].pk)

    # When one ends, I expect the next to start, on the other node, too
    end(claims[0])
    assert len(claim_all(nodes[1])) == 1
    assert claim_all(nodes[0]) == []


def test_a_smaller_job_of_the_namespace_and_those_of_others_go_past_one_that_is_over_a_limit() -> None:
    make_namespace("a", max_cpu_millis=2000)
    make_namespace("b")
    node = make_node(cpus=8)
    for name, cpu in (("a", 1500), ("a", 4000), ("a", 1000), ("a", 500), ("b", 1000)):
        make_job(namespace=name, cpu_millis=cpu)
    claims = claim_all(node)
    assert sorted((claim.job.namespace, claim.job.cpu_millis) for claim in claims if claim.job) == [
        ("a", 500),
        ("a", 1500),
        ("b", 1000),
    ]


def test_concurrent_claims_on_several_nodes_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given jobs of a namespace that may run nine, and two nodes with room for all, of which one begins with others
    make_namespace("a", max_running=9)
    nodes = [make_node("one", cpus=32, memory_mib=8000), make_node("two", cpus=32, memory_mib=900)]
    for memory in [1000] * 12 + [10] * 12:
        make_job(namespace="a", memory_mib=memory)
    taken: list[Claim] = []
    two_have_counted = threading.Barrier(2)

    def count(namespace: str) -> Use:
        """Count, and let another worker count before the transaction ends, if nothing keeps it from that."""
        use = use_of(namespace)
        with suppress(threading.BrokenBarrierError):
            two_have_counted.wait(0.5)  # once, then it is broken
        return use

    monkeypatch.setattr(claiming, "use_of", count)

    def take(node: Node, worker: UUID) -> None:
        taken.extend(claim_all(node, worker))
        connection.close()

    def claim_everywhere() -> None:
        threads = [threading.Thread(target=take, args=(node, make_worker(node))) for node in nodes for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    # When four workers claim at the same time, I expect nine jobs to start
    claim_everywhere()
    assert len({claim.uuid for claim in taken}) == len(taken) == use_of("a").jobs == 9

    # and the tenth when one has ended
    end(taken[0])
    claim_everywhere()
    assert len(taken) == 10
    assert use_of("a").jobs == 9


job_sizes = st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(1, 4))
maxima = st.none() | st.integers(1, 6)


@given(jobs=st.lists(job_sizes, max_size=8), most=st.tuples(maxima, maxima, maxima), ended=st.sets(st.integers(0, 7)))
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_no_order_of_jobs_and_ends_goes_over_a_limit_or_leaves_room_unused(
    jobs: list[tuple[str, int, int]], most: tuple[Any, Any, Any], ended: set[int]
) -> None:
    # Given jobs of a namespace with limits and of one without
    Job.objects.all().delete()
    Node.objects.all().delete()
    number, cpus, memory = most
    limit: Any = {
        "max_running": number,
        "max_cpu_millis": cpus and cpus * 1000,
        "max_memory_mib": memory and memory * 100,
    }
    make_namespace("a", **limit)
    make_namespace("b")
    node = make_node(cpus=64, memory_mib=65536)
    for name, cpu, mib in jobs:
        make_job(namespace=name, cpu_millis=cpu * 1000, memory_mib=mib * 100, callback=None)

    def within(use: Any) -> bool:
        pairs = ((use[0], number), (use[1], cpus and cpus * 1000), (use[2], memory and memory * 100))
        return all(maximum is None or value <= maximum for value, maximum in pairs)

    # When some end between claims, I expect the limits to hold, and no job to wait that they allow
    claims = claim_all(node)
    for _ in range(2):
        use = use_of("a")
        used = (use.jobs, use.cpu_millis, use.memory_mib)
        assert within(used)
        waiting = Job.objects.filter(status=State.ACCEPTED, node=None)
        assert not waiting.filter(namespace="b").exists()
        assert not any(within((used[0] + 1, used[1] + job.cpu_millis, used[2] + job.memory_mib)) for job in waiting)
        for index, claim in enumerate(claims):
            if index in ended:
                end(claim)
        claims = claim_all(node)
