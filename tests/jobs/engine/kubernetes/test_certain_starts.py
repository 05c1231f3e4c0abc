"""When the cluster's description of a pod shows that its process never runs, so that the job may be run again; and when not."""

from typing import Any

import pytest

from jobs.engine.kubernetes.api.cluster_objects import ClusterObjects, JobAndPod
from jobs.engine.kubernetes.states.observations import is_dead, observation
from jobs.engine.kubernetes.states.pod_status import ended_by_itself
from tests.jobs.engine.kubernetes.scripted_api import job, pod

pytestmark = pytest.mark.stateless

UNKNOWN = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}}
WAITING = {"waiting": {"reason": "ImagePullBackOff"}}
DELETED = {"deletionTimestamp": "2026-01-01T00:00:01Z", "deletionGracePeriodSeconds": 1}


def ended_by(reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}


def with_node(name: str, found: dict[str, Any]) -> dict[str, Any]:
    found["spec"]["nodeName"] = name
    return found


def deleted(found: dict[str, Any]) -> dict[str, Any]:
    found["metadata"] |= DELETED
    return found


def failed_start(message: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": 128, "reason": "StartError", "message": message, "startedAt": "1970-01-01T00:00:00Z"}}


NEVER = {
    "cut off before its process was made": pod(
        "one",
        6,
        failed_start("failed to create containerd task: failed to create shim task: context canceled: unknown"),
        phase="Failed",
    ),
    "whose runtime could not start it": pod(
        "one", 6, failed_start('failed to start containerd task "1": OCI runtime start failed: no such file'), phase="Failed"
    ),
    "ended by its node without a container": pod("one", 6, UNKNOWN, phase="Failed"),
    "so ended because its node was to be left": pod("one", 6, UNKNOWN, phase="Failed", **ended_by("DeletionByTaintManager")),
    "ended by its node before it was initialized": pod("one", 6, WAITING, phase="Failed"),
    "refused by its node": pod("one", 6, phase="Failed", reason="OutOfcpu"),
    "deleted without a node": deleted(with_node("", pod("one", 6, phase="Pending"))),
}
PERHAPS = {
    "deleted without a grace": deleted(pod("one", 6, WAITING, phase="Pending")),
    "of a node that was removed": pod("one", 6, WAITING, phase="Failed", **ended_by("DeletionByPodGC")),
    "of a node that was lost": pod("one", 6, WAITING, phase="Failed", **ended_by("DeletionByTaintManager")),
    "of which only the list says that it is gone": with_node("", pod("one", 6, phase="Pending")),
}


@pytest.mark.parametrize("found", NEVER.values(), ids=NEVER)
def test_a_job_whose_process_never_runs_may_be_run_again(found: dict[str, Any]) -> None:
    for is_gone in (False, True):
        one = JobAndPod(job("one", 5), found, pod_is_gone=is_gone)
        assert (is_dead(one), observation(one).phase) == (True, "created")


@pytest.mark.parametrize("found", PERHAPS.values(), ids=PERHAPS)
def test_a_job_whose_process_may_have_run_is_lost(found: dict[str, Any]) -> None:
    one = JobAndPod(job("one", 5), found, pod_is_gone=True)
    seen = observation(one)

    assert (is_dead(one), seen.phase, seen.lost, seen.exit_code) == (False, "ended", True, None)
    assert seen.end_cause


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_start_that_was_cut_off_may_have_run_the_process(is_gone: bool) -> None:
    # Given a kubelet that was killed after the container was made, and before its runtime had answered
    found = pod("one", 6, failed_start('failed to start containerd task "1": context canceled: unknown'), phase="Failed")
    one = JobAndPod(job("one", 5), found, pod_is_gone=is_gone)

    seen = observation(one)

    assert (is_dead(one), seen.phase, seen.lost, seen.exit_code) == (False, "ended", True, None)
    assert "may have run" in seen.end_cause


def test_a_pod_whose_node_still_has_to_report_is_waited_for() -> None:
    assert observation(JobAndPod(job("one", 5), PERHAPS["deleted without a grace"])).phase == "starting"


@pytest.mark.parametrize("reported", [{"containerID": "containerd://1"}, {"lastState": UNKNOWN}], ids=["made", "run"])
def test_a_container_that_its_node_had_has_run_even_if_its_end_is_unknown(reported: dict[str, Any]) -> None:
    found = pod("one", 6, UNKNOWN, phase="Failed")
    found["status"]["containerStatuses"][0] |= reported

    seen = observation(JobAndPod(job("one", 5), found))

    assert (seen.phase, seen.lost) == ("ended", True)
    assert "no longer knows" in seen.end_cause


@pytest.mark.parametrize("found", PERHAPS.values(), ids=PERHAPS)
def test_a_pod_that_still_takes_its_inputs_has_not_run(found: dict[str, Any]) -> None:
    one = JobAndPod(job("one", 5, requested=False), found, pod_is_gone=True)

    assert (is_dead(one), observation(one).phase) == (True, "created")


def test_a_pod_that_vanished_while_no_watch_was_open_may_have_run() -> None:
    # Given a pod that was about to start when its watch was cut off
    objects = ClusterObjects(ended_by_itself)
    objects.put_job(job("one", 5))
    objects.put_pod(pod("one", 6, WAITING, phase="Pending"))

    # When it is not among those that are listed later
    objects.only_pods([], version=9)

    # I expect the job not to be run again
    found = objects.find("one")
    assert found is not None
    assert observation(found).lost
