"""Which nodes are lost."""

import pytest

from jobs import lifecycle
from jobs.maintenance.dead_workers import sign_off
from jobs.maintenance.lost_nodes import LostNodeDetector, end_jobs
from jobs.models import Job, Worker
from jobs.states import Reason, State
from tests.helpers.clock import ManualClock
from tests.helpers.factories import claimed, make_cluster, make_job, make_node, make_worker

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_node_without_a_worker_is_lost_after_its_time() -> None:
    # Given a job on a node whose worker is gone
    node = make_node()
    claimed(make_job(), node)
    sign_off(Worker.objects.get().pk)
    clock = ManualClock()
    detector = LostNodeDetector(60, clock=clock)

    # I expect the node to be lost after 60 s of observation, although another node has a worker
    make_worker(make_node("other"))
    assert detector.check() == []
    assert clock.advance(59, detector.check) == []
    assert clock.advance(2, detector.check) == [node.pk]

    # And not any more as soon as it has a worker again
    make_worker(node)
    assert clock.advance(1, detector.check) == []
    assert Job.objects.get().node == node


def test_a_database_outage_makes_no_node_lost() -> None:
    # Given a node whose worker is gone
    node = make_node()
    claimed(make_job(), node)
    sign_off(Worker.objects.get().pk)
    clock = ManualClock()
    detector = LostNodeDetector(60, clock=clock)
    detector.check()

    # When nothing could be checked for an hour
    clock.now += 3600

    # I expect the time to start over
    assert detector.check() == []
    assert clock.advance(59, detector.check) == []
    assert clock.advance(1, detector.check) == [node.pk]


def test_a_node_that_had_a_worker_meanwhile_gets_its_full_time_again() -> None:
    # Given a node without a worker for most of its time
    node = make_node()
    claimed(make_job(), node)
    sign_off(Worker.objects.get().pk)
    clock = ManualClock()
    detector = LostNodeDetector(60, clock=clock)
    clock.advance(50, detector.check)

    # When no node was without a worker for a moment
    detector.reset()

    # I expect its time to start over
    assert clock.advance(59, detector.check) == []


@pytest.mark.parametrize("is_cluster", [True, False], ids=["cluster", "engine"])
def test_a_job_that_waits_in_a_lost_cluster_is_not_run_elsewhere(is_cluster: bool) -> None:
    # Given a node that is lost with a job whose start was requested, and one that was not as far
    node = make_cluster() if is_cluster else make_node()
    waiting, prepared = make_job(), make_job()
    claims = [claimed(waiting, node), claimed(prepared, node)]
    lifecycle.report_prepared(claims[0], "starting")
    for claim in claims:
        sign_off(claim.owner)

    # When
    assert end_jobs([node.pk]) == 2

    # I expect only the one to be put back that cannot have run: a cluster may have started the other meanwhile
    waiting.refresh_from_db()
    prepared.refresh_from_db()
    assert (prepared.status, prepared.node) == (State.ACCEPTED, None)
    if is_cluster:
        assert (waiting.status, waiting.reason) == (State.FAILED, Reason.ENGINE_LOST)
        assert waiting.error == "the node cluster was lost while the job waited for its start there: it may have run"
    else:
        assert (waiting.status, waiting.node) == (State.ACCEPTED, None)
    node.refresh_from_db()
    assert (node.cpu_millis_reserved, node.memory_mib_reserved) == (0, 0)
