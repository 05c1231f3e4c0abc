"""A cluster that has failed to start a container tries again by itself: no job runs twice; on a fake that schedules."""

import threading

import pytest
from django.db import connection

from jobs.errors import ContainerConflict, EngineInTrouble, EngineUnavailable
from jobs.models import Job
from jobs.states import Reason, State
from tests.fake_engine import SchedulingEngine
from tests.helpers.factories import make_job
from tests.helpers.fake_clusters import NO_CPU
from tests.helpers.job_checks import event_types, stored_log, wait_until_removed
from tests.helpers.kills import Moment, killing
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, declare_worker_dead

pytestmark = pytest.mark.django_db(transaction=True)

NO_HELPER = EngineInTrouble("the image of the helper cannot be pulled")


@pytest.fixture
def engine(cluster: SchedulingEngine) -> SchedulingEngine:
    return cluster


@pytest.fixture(autouse=True)
def quick(workers: Workers) -> None:
    workers.set_intervals(run={"retries": (0.01,)}, claim={"start_pause": 0.05, "start_pause_max": 0.05})


@pytest.fixture
def job(engine: SchedulingEngine) -> Job:
    """A job whose start the cluster reports as failed until the node accepts no more jobs: three times."""
    engine.full_because = NO_CPU
    for _ in range(3):
        engine.fail_next("wait_until_started", NO_HELPER)
    return make_job(command="echo ran")


def has_run_once(job: Job) -> None:
    job = completed(job)
    assert (job.status, stored_log(job)) == (State.COMPLETED, ["ran"])
    assert event_types(job) == ["start", "log", "exit", "complete"]


def test_a_job_whose_start_was_withdrawn_is_requeued(engine: SchedulingEngine, workers: Workers, job: Job) -> None:
    workers.set_intervals(claim={"start_pause": 60})

    workers.another().run_jobs()

    job.refresh_from_db()
    assert (job.status, job.node, job.claims) == (State.ACCEPTED, None, 1)
    assert engine.list({}) == []


def test_a_process_that_has_started_before_it_was_withdrawn_is_the_jobs(
    engine: SchedulingEngine, workers: Workers, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a cluster that starts the process after all
    withdraw = engine.withdraw

    def withdraw_late(name: str) -> None:
        engine.place(name)
        withdraw(name)

    monkeypatch.setattr(engine, "withdraw", withdraw_late)

    # When the job would be requeued
    workers.another().run_jobs()

    # I expect it to have run in its first container
    has_run_once(job)
    assert completed(job).claims == 1
    wait_until_removed(engine)


def test_a_process_that_may_have_run_is_lost(
    engine: SchedulingEngine, workers: Workers, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(name: str) -> None:
        engine.place(name)
        engine.lose(name, "its pod was deleted")
        raise ContainerConflict("its process may have run")

    monkeypatch.setattr(engine, "withdraw", end)

    workers.another().run_jobs()

    job = completed(job)
    assert (job.status, job.reason, job.error, job.claims) == (State.FAILED, Reason.ENGINE_LOST, "its pod was deleted", 1)


def test_a_job_is_not_requeued_while_nobody_knows_whether_it_has_run(
    engine: SchedulingEngine, workers: Workers, job: Job
) -> None:
    # Given a node that does not answer for a while, and then starts the process
    engine.fail_next("withdraw", EngineUnavailable("the node does not report whether it has run"))

    workers.run(workers.another())
    wait_for(lambda: not engine._faults["withdraw"], 10, "the withdrawal")

    engine.full_because = ""
    has_run_once(job)
    assert completed(job).claims == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_while_it_withdraws_a_start_is_replaced(
    engine: SchedulingEngine, workers: Workers, job: Job, moment: Moment
) -> None:
    # Given a worker that is killed
    worker = workers.another(worker_threads=1)
    with killing(threading.current_thread().name, "withdraw", moment, engine) as killer:
        worker.run_jobs()
    assert killer.killed
    connection.close()
    declare_worker_dead(worker)

    # When the cluster has room, and another worker continues
    engine.full_because = ""
    workers.another(worker_threads=1).run_jobs()

    # I expect the job to run once
    has_run_once(job)
    wait_until_removed(engine)
