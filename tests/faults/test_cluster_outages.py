"""Parts of a real cluster are killed, or have an engine beside them: each job ends as it must, and nothing is done twice."""

import os

import pytest

from tests.faults.cluster import ClusterSystem, ClusterSystemOn
from tests.faults.system import pass_time
from tests.helpers.cluster_processes import without
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.short, pytest.mark.alone, pytest.mark.timeout(300)]


def test_the_api_server_is_gone_for_20_seconds(cluster_system: ClusterSystem) -> None:
    # Given a mixed load
    system = cluster_system
    system.start()
    system.load.mixed(25)
    long = system.load.long(40)
    system.load.wait_until_running(long)

    # When the API server is away, while more jobs are posted
    with system.load.posting_more(), without("apiserver", system.namespace.admin):
        pass_time(20)

    # I expect every job to end as it must
    system.check(240)


def test_the_kubelet_is_killed_and_restarted(cluster_system: ClusterSystem) -> None:
    # Given a mixed load
    system = cluster_system
    system.start()
    system.load.mixed(15)

    # When the kubelet is killed while it starts containers, and while more jobs are posted
    pass_time(system.random.uniform(0.5, 3))
    with without("kubelet", system.namespace.admin):
        for task in system.load.tasks:
            task.start_may_be_cut_off = True
        pass_time(1)
    long = system.load.long(25)
    system.load.wait_until_running(long)
    with system.load.posting_more(), without("kubelet", system.namespace.admin):
        pass_time(10)

    # I expect every job to end as it must
    system.check(240)


@pytest.mark.engine
def test_an_engine_and_a_cluster_serve_one_installation(cluster_system_on: ClusterSystemOn) -> None:
    # Given a worker of a cluster whose jobs may have little cpu, and one of an engine whose jobs may have little memory
    with cluster_system_on(os.environ["DOCKER_HOST"], DOCKER_HOST=os.environ["DOCKER_HOST"]) as system:
        system.start()
        system.service.terminate("worker")
        system.service.start("worker", "worker-1", NODE_NAME="cluster", NODE_CPUS="1")
        system.service.start("worker", "worker-2", ENGINE="docker", NODE_NAME="engine", NODE_MEMORY="256MiB")

        # When jobs are posted that only one of them can hold, and some that both can
        much_cpu = [system.load.quick(cpu=1.5) for _ in range(3)]
        much_memory = [system.load.long(4, memory=300) for _ in range(3)]
        system.load.mixed(6)
        neither = system.service.post_job(command="true", cpu=1.5, memory=300)
        wait_for(lambda: "no node with both" in system.service.get_job(neither)["waiting"], 30, "what it waits for", step=0.2)
        system.service.kill("worker-1")
        system.service.restart("worker-1")
        system.service.request("DELETE", f"/v1/jobs/{neither}")

        # I expect each job to run where it fits, and to say where
        system.check(240)
        assert {system.service.get_job(task.id)["node"] for task in much_cpu} == {"engine"}
        assert {system.service.get_job(task.id)["node"] for task in much_memory} == {"cluster"}
