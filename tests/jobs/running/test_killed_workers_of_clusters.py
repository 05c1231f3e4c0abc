"""A worker is killed at any of the commits and engine calls of a job that waits in a cluster; on a fake that schedules."""

import itertools
import threading

import pytest
from django.db import connection

from jobs.maintenance.leftovers import remove_leftovers
from jobs.models import Job
from jobs.spec import OutputSpec
from jobs.states import OutputType, State
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base.intervals import RelayIntervals
from tests.fake_engine import SchedulingEngine
from tests.helpers.factories import make_job
from tests.helpers.fake_clusters import NO_CPU, container_of, waits_for
from tests.helpers.job_checks import event_types, file_input, stored_log
from tests.helpers.kills import Moment, killing
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, declare_worker_dead

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def engine(cluster: SchedulingEngine) -> SchedulingEngine:
    return cluster


@pytest.fixture
def worker(workers: Workers) -> Supervisor:
    return another(workers)


def another(workers: Workers) -> Supervisor:
    """Start a worker of which nothing ticks on once its thread is killed."""
    workers.set_intervals(worker={"tick": 60.0})
    worker = workers.another(worker_threads=1)
    wait_for(lambda: worker._engine_watch.answers, 20, "the engine to be watched")
    return worker


def job_with_files() -> Job:
    output = OutputSpec(id="out", type=OutputType.EVENT, path="out")
    return make_job(command="echo ran; cp in out", inputs=(file_input("in", b"x"),), outputs=(output,))


def full_until_waited_for(engine: SchedulingEngine, job: Job) -> threading.Thread:
    """Let the cluster be full until a job says that it waits for a place."""
    engine.full_because = NO_CPU

    def free() -> None:
        try:
            waits_for(job, NO_CPU)
        finally:
            engine.full_because = ""
            connection.close()

    thread = threading.Thread(target=free)
    thread.start()
    return thread


def check_outcome(engine: SchedulingEngine, worker: Supervisor, job: Job) -> None:
    """Check that the job ran to its end once, is reported in order, and left nothing."""
    job = completed(job)
    assert (job.status, job.exit_code, stored_log(job)) == (State.COMPLETED, 0, ["ran"])
    assert event_types(job) == [*(["input"] if job.has_inputs else []), "start", "log", "exit", *job_outputs(job), "complete"]
    remove_leftovers(engine, worker.node, worker.instance, worker.sandboxes.sort, RelayIntervals(leftover_grace=0.0))
    assert engine.list({}) == []
    worker.node.refresh_from_db()
    assert (worker.node.cpu_millis_reserved, worker.node.memory_mib_reserved) == (0, 0)


def job_outputs(job: Job) -> list[str]:
    return ["output"] if job.has_outputs else []


@pytest.mark.parametrize("files", [False, True], ids=["plain", "with files"])
def test_a_worker_killed_at_any_place_is_replaced(
    engine: SchedulingEngine, workers: Workers, worker: Supervisor, files: bool
) -> None:
    for place in itertools.count(1):
        # Given a job that waits for a place, and whose worker is killed
        job = job_with_files() if files else make_job(command="echo ran")
        scheduler = full_until_waited_for(engine, job)
        with killing(threading.current_thread().name, place, "after", engine) as killer:
            worker.run_jobs()
        if killer.killed:
            connection.close()
            declare_worker_dead(worker)
            worker = another(workers)

        # When another worker continues, I expect the same as without
        worker.run_jobs()
        scheduler.join()
        print(killer.story)
        check_outcome(engine, worker, job)
        if not killer.killed:
            break
    assert {"commit", "create", "prepare", "start", "wait_until_started", "remove"} <= set(killer.effects)


@pytest.mark.parametrize("place", ["commit", "rename"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_while_it_adopts_a_job_that_waits_is_replaced(
    engine: SchedulingEngine, workers: Workers, worker: Supervisor, place: str, moment: Moment
) -> None:
    # Given a job that waits, and whose worker was killed
    engine.full_because = NO_CPU
    job = make_job(command="echo ran")
    with killing(threading.current_thread().name, "start", "after", engine):
        worker.run_jobs()
    connection.close()
    declare_worker_dead(worker)

    # When the next one is killed while it adopts the container
    worker = another(workers)
    with killing(threading.current_thread().name, place, moment, engine) as killer:
        worker.run_jobs()
    assert killer.killed
    connection.close()
    declare_worker_dead(worker)

    # I expect a third one to continue
    worker = another(workers)
    scheduler = full_until_waited_for(engine, job)
    worker.run_jobs()
    scheduler.join()
    check_outcome(engine, worker, job)


def test_a_job_that_waits_is_handed_over_with_its_container(engine: SchedulingEngine, workers: Workers) -> None:
    # Given a job that waits
    engine.full_because = NO_CPU
    job = make_job(command="echo ran")
    first = workers.another()
    thread = workers.run(first)
    waits_for(job, NO_CPU)
    before = engine.inspect(container_of(engine, job))

    # When its worker is stopped and another one continues
    first.stop()
    thread.join(10)
    assert not thread.is_alive()
    workers.run(workers.another())
    wait_for(lambda: container_of(engine, job) != before.name, 10, "the container to be renamed")

    # I expect it to keep its place in the queue
    after = engine.inspect(container_of(engine, job))
    assert (after.phase, after.created_at) == ("starting", before.created_at)
    engine.full_because = ""
    assert stored_log(completed(job)) == ["ran"]


def test_a_job_that_waits_for_long_does_not_come_under_suspicion(
    engine: SchedulingEngine, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that waits, and some of whose workers were killed for other reasons
    workers.set_intervals(worker={"proven_harmless": 0.2})
    engine.full_because = NO_CPU
    job = make_job(command="echo ran")
    Job.objects.update(owner_deaths=9)

    # When a worker has it for a while, I expect it to be cleared
    workers.run(workers.another())
    wait_for(lambda: Job.objects.get().owner_deaths == 0, 10, "it to be cleared")
    waits_for(job, NO_CPU)
    engine.full_because = ""
    completed(job)
