"""Which workers are dead, and what becomes of their jobs."""

import os
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from jobs import lifecycle
from jobs.errors import OwnershipLost
from jobs.maintenance.dead_workers import DeadWorkerDetector, declare_dead
from jobs.models import Worker
from jobs.worker.heartbeat import Heartbeat
from orchestrator_site.base.intervals import WorkerIntervals
from tests.helpers.clock import ManualClock
from tests.helpers.factories import STARTED_AT, claimed, make_job, make_node, make_worker
from tests.helpers.service_log import service_log

pytestmark = pytest.mark.django_db(transaction=True)

INTERVALS = WorkerIntervals(dead_after=15, observer_restarts_after=6)


def test_a_worker_is_dead_after_15_seconds_without_a_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    # Given a worker with a job, seen alive
    job = make_job()
    claim = claimed(job, make_node())
    clock = ManualClock()
    detector = DeadWorkerDetector(INTERVALS, clock)
    detector.check()

    # When its counter stands still for less than the limit, I expect nothing
    assert clock.advance(14, detector.check) == 0
    assert Worker.objects.count() == 1

    # When for longer, I expect its job to have no owner, and its late writes to be refused
    with service_log(caplog) as log:
        assert clock.advance(1, detector.check) == 1
    assert Worker.objects.count() == 0
    job.refresh_from_db()
    assert job.owner is None
    with pytest.raises(OwnershipLost):
        lifecycle.started(claim, STARTED_AT)

    # And a line about it that has the name of the node
    (line,) = log.about("a worker is dead")
    assert (line["node"], line["jobs"]) == ("node", 1)


def test_a_moving_counter_keeps_a_worker_alive() -> None:
    worker = make_worker(make_node())
    clock = ManualClock()
    detector = DeadWorkerDetector(INTERVALS, clock)
    for _ in range(10):
        Worker.objects.filter(pk=worker).update(counter=F("counter") + 1)
        clock.advance(5, detector.check)

    assert Worker.objects.filter(pk=worker).exists()


def test_a_database_outage_makes_no_worker_dead() -> None:
    # Given a detector that saw a worker
    make_worker(make_node())
    clock = ManualClock()
    detector = DeadWorkerDetector(INTERVALS, clock)
    detector.check()

    # When it could not check for an hour
    clock.now += 3600
    detector.check()

    # I expect the worker to get its full time again
    clock.advance(14, detector.check)
    assert Worker.objects.count() == 1


def test_a_released_lock_file_makes_its_worker_dead_at_once(tmp_path: Path) -> None:
    # Given a live worker of this machine and a dead one that left its lock file
    node = make_node()
    heartbeat = Heartbeat(node.pk, tmp_path)
    left = tmp_path / "dead.lock"
    left.touch()
    dead = make_worker(node, str(left))

    # When
    DeadWorkerDetector().check()

    # I expect the row and the file of the dead one to be gone, and those of the live one to stay
    assert not Worker.objects.filter(pk=dead).exists()
    assert not left.exists()
    assert Worker.objects.filter(pk=heartbeat.worker_id).exists()
    assert heartbeat._lock.path.exists()
    heartbeat.stop()


def test_a_known_worker_whose_lock_file_is_released_is_dead_at_the_next_check(tmp_path: Path) -> None:
    # Given a live worker that was just seen
    clock = ManualClock()
    detector = DeadWorkerDetector(INTERVALS, clock)
    heartbeat = Heartbeat(make_node().pk, tmp_path)
    detector.check()

    # When its lock is released, as the kernel does at its death
    assert heartbeat._lock._descriptor is not None
    os.close(heartbeat._lock._descriptor)

    # I expect the next check to remove it, although it does not look at the counters yet
    assert detector.check() == 1
    assert Worker.objects.count() == 0


def test_an_observer_reads_the_counters_less_often_than_it_checks_the_locks() -> None:
    # Given an observer that checks every second
    make_worker(make_node())
    clock = ManualClock()
    detector = DeadWorkerDetector(INTERVALS, clock)

    # When it observes for forty seconds, I expect a statement every four seconds
    with CaptureQueriesContext(connection) as queries:
        for _ in range(40):
            Worker.objects.update(counter=F("counter") + 1)
            detector.check()
            clock.now += 1
    assert sum("SELECT" in query["sql"] for query in queries) == 10


def test_a_late_read_does_not_start_the_observation_over() -> None:
    # Given an observer with the intervals of the service that saw a worker
    make_worker(make_node())
    clock = ManualClock()
    detector = DeadWorkerDetector(clock=clock)
    detector.check()

    # When its next reads are as late as if one had been left out each time
    clock.now += 8
    assert detector.check() == 0
    clock.now += 8

    # I expect it to find the worker dead nevertheless
    assert detector.check() == 1


def test_after_an_outage_that_goes_unnoticed_a_worker_has_time_to_connect_again() -> None:
    intervals = WorkerIntervals()
    assert intervals.dead_after - intervals.observer_restarts_after > intervals.database_answer


def test_a_worker_whose_counter_has_moved_is_not_dead() -> None:
    worker = make_worker(make_node())
    Worker.objects.filter(pk=worker).update(counter=7)

    assert not declare_dead(worker, counter=6)
    assert Worker.objects.filter(pk=worker).exists()
