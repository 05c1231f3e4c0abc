"""Which jobs a worker of a cluster may drive, alone and beside container engines."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import draining, lifecycle, node_hints, services
from jobs.api.waiting_reason import waiting_for
from jobs.models import Job, Node
from jobs.running import claiming
from jobs.states import State
from tests.fake_engine import FakeEngine, SchedulingEngine
from tests.helpers.factories import claimed, make_cluster, make_job, make_node, make_worker
from tests.helpers.fake_clusters import NO_CPU, waits_for
from tests.helpers.job_checks import stored_log
from tests.helpers.keys import make_namespace
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed

pytestmark = pytest.mark.django_db(transaction=True)


def claim_all(node: Node) -> list[Job]:
    """Claim what a worker of the node may have, and return it."""
    worker, jobs = make_worker(node), []
    while claim := claiming.claim(node.pk, worker):
        assert claim.job is not None
        jobs.append(claim.job)
    return jobs


def test_a_cluster_takes_every_job_that_its_largest_host_could_hold() -> None:
    # Given more jobs than all hosts together could run, and some that are too large for any of them
    cluster = make_cluster(largest_cpus=2, largest_memory_mib=4096)
    fitting = [make_job(cpu_millis=2000, memory_mib=4096) for _ in range(9)]
    too_large = [make_job(cpu_millis=2001), make_job(memory_mib=4097)]

    # When
    taken = claim_all(cluster)

    # I expect the others to wait, whatever the hosts have together
    assert taken == fitting
    assert waiting_for(too_large[0]) == "no node with 2.001 cpus; the largest has 2"
    assert waiting_for(too_large[1]) == "no node with 4097 MiB of memory; the largest has 4096 MiB"
    cluster.refresh_from_db()
    assert (cluster.cpu_millis_reserved, cluster.memory_mib_reserved) == (9 * 2000, 9 * 4096)


def test_what_a_job_has_reserved_in_a_cluster_is_given_back() -> None:
    cluster = make_cluster()
    claim = claimed(make_job(), cluster)

    services.cancel(Job.objects.get().id)
    lifecycle.conclude(claim)

    cluster.refresh_from_db()
    assert (cluster.cpu_millis_reserved, cluster.memory_mib_reserved) == (0, 0)


@pytest.mark.parametrize("limit", [{"max_running": 2}, {"max_cpu_millis": 2500}, {"max_memory_mib": 160}])
def test_limits_of_namespaces_hold_in_a_cluster(limit: dict[str, int]) -> None:
    # Given a namespace that may have two jobs started at once
    make_namespace("a", **limit)
    cluster = make_cluster()
    jobs = [make_job(namespace="a") for _ in range(3)]

    # When its jobs are claimed, which then may wait in the cluster, I expect the third to wait for its namespace
    assert claim_all(cluster) == jobs[:2]
    assert str(waiting_for(jobs[2])).startswith("its namespace, which may use ")


def test_a_drained_cluster_takes_no_new_jobs() -> None:
    # Given a cluster with a job of a dead worker, and an unclaimed one
    cluster = make_cluster()
    claimed(make_job(), cluster)
    Job.objects.update(owner=None)
    waiting = make_job()

    # When it is drained, I expect the first to be driven on, and the other to wait
    assert draining.drain(cluster.pk)
    assert [job.claims for job in claim_all(cluster)] == [2]
    assert waiting_for(waiting) == "a node that takes new jobs: an operator has drained all that are large enough"
    assert draining.undrain(cluster.pk)
    assert claim_all(cluster) == [waiting]


def test_a_job_that_a_cluster_could_hold_waits_for_a_thread_of_a_worker() -> None:
    make_worker(make_cluster())
    jobs = [make_job(), make_job()]
    assert [waiting_for(job) for job in jobs] == ["a free thread of a worker", "1 job ahead"]


def test_a_hint_goes_to_an_engine_with_room_before_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a busy engine with room for one more job, and an idle cluster
    engine, cluster = make_node("engine", cpus=2, overcommit=1), make_cluster()
    Node.objects.filter(pk=engine.pk).update(cpu_millis_reserved=1000)
    hints: list[str] = []

    def hint(queue: str, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():  # another one sends those for jobs of earlier tests
            hints.append(queue)

    monkeypatch.setattr(node_hints, "hint", hint)

    # When
    job = Job(cpu_millis=1000, memory_mib=64)
    node_hints.send_hints([job, job, Job(cpu_millis=2001, memory_mib=64), Job(cpu_millis=64, memory_mib=4097)])

    # I expect the second job to be for the cluster; it cannot hold the third, and no node the last
    assert hints == [node_hints.queue_of(engine.pk), node_hints.queue_of(cluster.pk)]


def test_engines_and_a_cluster_share_the_jobs_by_what_each_can_hold() -> None:
    # Given a large engine with little memory and a cluster of small hosts with much
    engine = make_node("engine", cpus=8, overcommit=1, memory_mib=1000)
    cluster = make_cluster(largest_cpus=2, largest_memory_mib=4096)
    many_cpus, much_memory, both = (
        make_job(cpu_millis=8000),
        make_job(memory_mib=4000),
        make_job(cpu_millis=8000, memory_mib=4000),
    )

    # When both take what they may
    assert claim_all(engine) == [many_cpus]
    assert claim_all(cluster) == [much_memory]

    # I expect each job where it fits, and one that fits nowhere to say so
    assert waiting_for(both) == "no node with both 8 cpus and 4000 MiB of memory"


def test_one_installation_runs_jobs_on_an_engine_and_in_a_cluster(
    engine: FakeEngine, cluster: SchedulingEngine, workers: Workers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Given an engine with 8 cpus, a full cluster of smaller hosts, and jobs of which one is too large for those
    cluster.full_because = NO_CPU
    in_cluster = Workers(cluster, tmp_path_factory.mktemp("cluster"))
    large, small = make_job(command="echo large", cpu_millis=8000), make_job(command="echo small", cpu_millis=1000)
    try:
        cluster._cpus = 4
        in_cluster.run(in_cluster.another(node_name="cluster"))
        waits_for(small, NO_CPU)

        # When the worker of the engine looks, I expect it to run the large one only: the other waits where it is
        workers.another(node_name="engine").run_jobs()
        assert (completed(large).status, stored_log(large)) == (State.COMPLETED, ["large"])
        cluster.full_because = ""
        assert stored_log(completed(small)) == ["small"]

        # And each job to say where it ran
        assert large.node is not None
        assert small.node is not None
        assert (large.node.name, small.node.name) == ("engine", "cluster")
        wait_for(lambda: not engine.list({}) and not cluster.list({}), 10, "the containers to be removed")
    finally:
        in_cluster.stop()


def test_a_cluster_that_grows_takes_larger_jobs(
    cluster: SchedulingEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that no host could hold
    workers = Workers(cluster, tmp_path)
    supervisor = workers.another()
    job = make_job(cpu_millis=9000)
    waits_for(job, "no node with 9 cpus; the largest has 8")
    supervisor.run_jobs()
    assert Job.objects.get().node is None

    # When a larger host joins
    describe = cluster.info
    monkeypatch.setattr(cluster, "info", lambda: replace(describe(), largest_cpus=16))

    # I expect the job to be the cluster's
    cluster.full_because = NO_CPU
    wait_for(lambda: Node.objects.get().cpu_millis == 16_000, 10, "the larger host")
    workers.run(supervisor)
    waits_for(job, NO_CPU)
    services.cancel(job.id)
    completed(job)
    workers.stop()
