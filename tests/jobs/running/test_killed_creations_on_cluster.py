"""A worker is killed between the requests with which it makes a job's objects on a real cluster."""

import threading
from typing import Any, Final

import pytest
from django.db import connection

from jobs.engine.kubernetes.api.cluster_client import Answer, ClusterClient
from jobs.models import Job
from jobs.spec import OutputSpec
from jobs.states import OutputType, State
from jobs.worker.supervisor import Supervisor
from tests.helpers.clusters import KubernetesBench, Namespace
from tests.helpers.factories import make_job
from tests.helpers.job_checks import event_types, file_input, stored_log
from tests.helpers.kills import Killer, killing
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, declare_worker_dead

pytestmark = [pytest.mark.kubernetes, pytest.mark.django_db(transaction=True)]

PLACES: Final = ("orchestrator-init", "orchestrator-mover", "jobs", "secrets")


@pytest.fixture
def engine(kubernetes_bench: KubernetesBench) -> object:
    return kubernetes_bench.engine


def another(workers: Workers) -> Supervisor:
    worker = workers.another()
    wait_for(lambda: worker._engine_watch.answers, 20, "the engine to be watched")
    return worker


def job_with_files() -> Job:
    output = OutputSpec(id="out", type=OutputType.EVENT, path="out")
    return make_job(
        command="echo ran; cp in out", inputs=(file_input("in", b"x"),), outputs=(output,), cpu_millis=100, memory_mib=16
    )


def kill_at_requests(patch: pytest.MonkeyPatch, killer: Killer) -> None:
    """Make effects of the requests to the cluster, named after the kind of object, or after the program in a ConfigMap."""
    exchange = ClusterClient.exchange

    def exchange_or_die(client: ClusterClient, method: str, path: str, **options: Any) -> Answer:
        kind = path.rpartition("/")[2]
        place = "-".join(options["body"]["metadata"]["name"].split("-")[:2]) if kind == "configmaps" else kind
        answer: Answer = killer.at(place, lambda: exchange(client, method, path, **options))
        return answer

    patch.setattr(ClusterClient, "exchange", exchange_or_die)


def test_a_worker_that_is_killed_while_it_makes_a_job_is_replaced(workers: Workers, kubernetes_bench: KubernetesBench) -> None:
    # Given a namespace without our programs, and jobs whose workers were killed after each of the requests that make one
    remove_programs(kubernetes_bench.namespace)
    killed, jobs = [], []
    for place in PLACES:
        jobs.append(job_with_files())
        killed.append(another(workers))
        with killing(threading.current_thread().name, place, "after") as killer, pytest.MonkeyPatch.context() as patch:
            kill_at_requests(patch, killer)
            killed[-1].run_jobs()
        connection.close()
        assert killer.killed, killer.story
    assert len(named_after(jobs, kubernetes_bench.namespace, "jobs")) == 2
    assert len(named_after(jobs, kubernetes_bench.namespace, "secrets")) == 1
    for worker in killed:
        declare_worker_dead(worker)

    # When another one continues
    worker = another(workers)
    for _ in jobs:
        workers.run(worker)

    # I expect it to run each to its end, once
    wait_for(lambda: not Job.objects.filter(completed_at=None).exists(), 60, "their ends")
    for job in jobs:
        job.refresh_from_db()
        assert (job.status, job.exit_code, stored_log(job)) == (State.COMPLETED, 0, ["ran"])
        assert event_types(job) == ["input", "start", "log", "exit", "output", "complete"]

    # And nothing of them to be left in the cluster
    for kind in ("jobs", "pods", "secrets"):
        wait_for(lambda kind=kind: not named_after(jobs, kubernetes_bench.namespace, kind), 30, f"the {kind} to go")


def remove_programs(namespace: Namespace) -> None:
    maps = namespace.path("configmaps")
    for found in namespace.admin("GET", maps)["items"]:
        if found["metadata"]["name"].startswith(PLACES[:2]):
            namespace.admin("DELETE", f"{maps}/{found['metadata']['name']}")


def named_after(jobs: list[Job], namespace: Namespace, kind: str) -> list[str]:
    """Return the names of what the cluster has of a kind for these jobs."""
    path = namespace.path(kind, group="/apis/batch/v1" if kind == "jobs" else "/api/v1")
    names = [found["metadata"]["name"] for found in namespace.admin("GET", path)["items"]]
    return [name for name in names if any(str(job.pk) in name for job in jobs)]
