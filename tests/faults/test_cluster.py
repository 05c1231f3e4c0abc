"""Jobs on a real cluster, which lose their worker or are deleted there: each ends as it must, and nothing is done twice."""

from typing import Any

import pytest

from tests.faults.cluster import ClusterSystem
from tests.faults.load import Task
from tests.faults.system import pass_time
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.short, pytest.mark.timeout(300)]

NAMES = ("web", "worker-1", "worker-2", "deliver", "relay")
MAX_PAUSE = 1.5  # seconds between a kill and the next start
HALF = {"cpu": 1.2}  # of the node: two such jobs do not fit


def says(system: ClusterSystem, task: Task, words: str) -> bool:
    """Return whether a job says that it waits for something with these words."""
    return words in system.service.get_job(task.id).get("waiting", "")


def check_lost(system: ClusterSystem, task: Task, *, words: str) -> None:
    """Check that a job ends as lost, and says why."""
    job: dict[str, Any] = system.service.wait_complete(task.id, 120)
    assert (job["status"], job["reason"]) == ("failed", "engine_lost"), job
    assert words in job["error"]
    task.expect_lost()


# -- processes of the service ----------------------------------------------------------------------------


def test_kill_9_of_any_processes_at_any_moment(cluster_system: ClusterSystem) -> None:
    # Given two workers of one cluster and a mixed load
    system = cluster_system
    system.start("worker-1", "worker-2")
    system.load.mixed(8)

    # When some of the processes are killed at random moments, again and again, while more jobs are posted
    with system.load.posting_more():
        for _ in range(4):
            pass_time(system.random.uniform(0, MAX_PAUSE))
            killed = system.random.sample(NAMES, system.random.randint(1, len(NAMES)))
            for name in killed:
                system.service.kill(name)
            pass_time(system.random.uniform(0, MAX_PAUSE))
            for name in killed:
                system.service.restart(name)

    # I expect every job to end as it must, started once, and nothing to be left over
    system.check(240)


def test_jobs_that_wait_or_run_out_of_time_are_adopted(cluster_system: ClusterSystem) -> None:
    # Given a node that is full, two jobs that wait for a place, and one that is about to run out of time
    system = cluster_system
    system.start()
    first = system.load.long(20, **HALF)
    system.load.wait_until_running(first)
    second, third = system.load.quick(**HALF), system.load.cancelled(3600, **HALF)
    for task in (second, third):
        wait_for(lambda task=task: says(system, task, "Insufficient cpu"), 60, "the words of the scheduler", step=0.2)
    overdue = system.load.overdue()
    system.load.wait_until_running(overdue)

    # When its worker is killed, and another one begins after that time
    system.service.kill("worker")
    pass_time(3)
    system.service.restart("worker")

    # I expect those to wait on in the same pods, one that is cancelled to go, and the overdue one to be stopped
    pod = system.namespace.pod_of(system.job_object(second.id)["metadata"]["name"])["metadata"]["uid"]
    owned = "SELECT claims FROM jobs_job WHERE id = %s AND owner_id IS NOT NULL"
    wait_for(lambda: system.service.query(owned, second.id) == [(2,)], 30, "the job to be adopted", step=0.2)
    assert system.namespace.pod_of(system.job_object(second.id)["metadata"]["name"])["metadata"]["uid"] == pod
    system.load.cancel(third)
    system.check()


# -- what the cluster or an operator does ----------------------------------------------------------------


@pytest.mark.parametrize(("kind", "words"), [("pod", "deleted"), ("job", "")])
def test_what_is_deleted_while_it_runs_is_lost(cluster_system: ClusterSystem, kind: str, words: str) -> None:
    system = cluster_system
    system.start()
    lost, other = system.load.long(60), system.load.long(8)
    system.load.wait_until_running(lost, other)

    system.delete(kind, lost.id)

    check_lost(system, lost, words=words)
    lost.log_may_end_unread = kind == "pod"
    system.check()


@pytest.mark.parametrize("kind", ["pod", "job"])
def test_what_is_deleted_before_it_ran_is_run_again(cluster_system: ClusterSystem, kind: str) -> None:
    # Given a job that waits for a place
    system = cluster_system
    system.start()
    first = system.load.long(12, **HALF)
    system.load.wait_until_running(first)
    second = system.load.quick(**HALF)
    wait_for(lambda: says(system, second, "Insufficient cpu"), 60, "the words of the scheduler", step=0.2)

    # When it is deleted
    before = system.job_object(second.id)["metadata"]["uid"]
    system.delete(kind, second.id)

    # I expect another one to wait and to run, once
    wait_for(lambda: has_another(system, second, before), 60, "another Job", step=0.2)
    system.check()


def has_another(system: ClusterSystem, task: Task, before: str) -> bool:
    uuid = system.uuid_of(task.id)
    return [one["metadata"]["uid"] for one in system.namespace.jobs() if uuid in one["metadata"]["name"]] not in ([], [before])


def test_what_belongs_to_no_job_is_removed(cluster_system: ClusterSystem) -> None:
    # Given a job that is complete, and one whose row is gone when its worker continues, as after a restore of the database
    system = cluster_system
    system.start()
    system.load.file_and_event()
    system.load.wait_until_done()
    identity = system.service.post_job(command="sleep 600", cpu=0.1, memory=16)
    system.service.wait_status(identity, "running")
    system.service.kill("worker")
    uuid = system.uuid_of(identity)
    system.service.query("DELETE FROM jobs_job WHERE uuid = %s", uuid)
    system.service.query("UPDATE jobs_node SET cpu_millis_reserved = 0, memory_mib_reserved = 0")

    # When the worker continues, and JOB_RETENTION is over
    system.service.restart("worker")
    system.service.kill("relay")
    system.service.start("relay", JOB_RETENTION="1s")

    # I expect no job to be left, and nothing of them in the cluster
    wait_for(lambda: system.service.query("SELECT id FROM jobs_job") == [], 30, "old jobs to be deleted", step=0.2)
    system.check_that_nothing_is_left()
