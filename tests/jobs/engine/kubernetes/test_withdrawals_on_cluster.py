"""The start of a container is taken back while its node may start the process at any moment: on a real cluster."""

from typing import Any

import pytest

from jobs.engine.kubernetes.api.cluster_objects import ClusterObjects
from jobs.errors import ContainerConflict, ContainerNotFound
from tests.helpers.clusters import KubernetesBench
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.stateless]

NO_FILES = {"has_inputs": False, "has_outputs": False}


def fails_to_pull(bench: KubernetesBench) -> bool:
    """Return whether a node tries in vain to pull the image of a pod."""
    statuses = [one for pod in bench.namespace.pods() for one in pod["status"].get("containerStatuses") or ()]
    return any("ImagePull" in one["state"].get("waiting", {}).get("reason", "") for one in statuses)


def test_a_container_whose_image_its_node_tries_to_pull_is_withdrawn(kubernetes_bench: KubernetesBench) -> None:
    # Given a node that tries to pull an image, and will go on trying
    bench = kubernetes_bench
    name = bench.created(image="127.0.0.1:9/image:1", **NO_FILES)
    bench.engine.start(name)
    wait_for(lambda: fails_to_pull(bench), what="the node to try")
    wait_for(lambda: bench.engine._view.find(name).pod, what="the pod to be seen")

    # When its start is taken back
    bench.engine.withdraw(name)

    # I expect the node to have said that it never ran, and nothing to be left of it
    with pytest.raises(ContainerNotFound):
        bench.engine.inspect(name)
    wait_for(lambda: not bench.namespace.pods(), what="its pod to be gone")


def test_a_process_that_its_node_has_not_reported_yet_is_not_withdrawn(
    kubernetes_bench: KubernetesBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that runs, and a worker that its node tells nothing about it until it has ended its pod
    bench = kubernetes_bench
    put = ClusterObjects.put_pod

    def put_late(objects: ClusterObjects, pod: dict[str, Any]) -> None:
        if "running" not in str(pod["status"]):
            put(objects, pod)

    monkeypatch.setattr(ClusterObjects, "put_pod", put_late)
    unaware = bench.another_engine()
    monkeypatch.setattr(ClusterObjects, "put_pod", put)
    name = bench.created(("sleep", "60"), **NO_FILES)
    unaware.list(bench.labels)  # its watch begins
    bench.start(name)
    wait_for(lambda: unaware._view.find(name).pod, what="the pod to be seen")
    assert unaware.inspect(name).phase == "starting"

    # When it takes the start back
    with pytest.raises(ContainerConflict):
        unaware.withdraw(name)

    # I expect that and every other worker to know that it has run
    for engine in (unaware, bench.engine):
        wait_for(lambda engine=engine: engine.inspect(name).phase == "ended", what="its watch to say so")
        seen = engine.inspect(name)
        assert (seen.lost, seen.end_cause) == (True, "its pod was deleted from the cluster while it ran")
    unaware.close()
