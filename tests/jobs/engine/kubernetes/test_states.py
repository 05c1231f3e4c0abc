"""What the cluster's description of a Job and its pod means, for states that the test cluster cannot be brought into."""

from typing import Any

import pytest

from jobs.engine.kubernetes.api.cluster_objects import ClusterObjects, JobAndPod
from jobs.engine.kubernetes.states.observations import observation
from jobs.engine.kubernetes.states.pod_status import ended_by_itself
from jobs.engine.kubernetes.states.start_progress import death, progress
from jobs.engine.protocol import Observation
from jobs.errors import ContainerNotFound, EngineInTrouble, ImageUnavailable, JobError, StartFailed, StartRefused
from tests.jobs.engine.kubernetes.scripted_api import ENDED, RUNNING, job, pod

pytestmark = pytest.mark.stateless


def disrupted(state: dict[str, Any], reason: str, *, at: str = "2026-01-01T00:00:05Z", **metadata: Any) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": at}
    found = pod("one", 6, state, conditions=[condition])
    found["metadata"] |= metadata
    return found


DELETED = {"deletionTimestamp": "2026-01-01T00:00:35Z", "deletionGracePeriodSeconds": 30}


# -- ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PreemptionByScheduler", "to make room for a pod of a higher priority"),
        ("DeletionByTaintManager", "its node was lost"),
        ("DeletionByPodGC", "its node was removed from the cluster"),
        ("EvictionByEvictionAPI", "it was evicted from its node"),
        ("TerminationByKubelet", "its node ended it"),
        ("SomethingNew", "its pod was deleted from the cluster while it ran"),
    ],
)
@pytest.mark.parametrize("metadata", [DELETED, {}], ids=["deleted", "failed"])
def test_what_the_cluster_ended_is_lost_and_says_why(reason: str, words: str, metadata: dict[str, Any]) -> None:
    seen = observation(JobAndPod(job("one", 5), disrupted(ENDED, reason, **metadata)))

    assert (seen.phase, seen.lost, seen.exit_code) == ("ended", True, 3)
    assert words in seen.end_cause


def test_what_ended_before_the_cluster_would_have_ended_it_is_not_lost() -> None:
    late = {"deletionTimestamp": "2026-01-01T00:00:40Z", "deletionGracePeriodSeconds": 30}
    found = disrupted(ENDED, "PreemptionByScheduler", at="2026-01-01T00:00:10Z")
    deleted = pod("one", 6, ENDED)
    deleted["metadata"] |= late

    for one in (found, deleted):
        seen = observation(JobAndPod(job("one", 5), one))
        assert (seen.lost, seen.exit_code, seen.end_cause) == (False, 3, "")


def seen_in_order(*pods: dict[str, Any]) -> Observation:
    objects = ClusterObjects(ended_by_itself)
    objects.put_job(job("one", 5))
    for version, one in enumerate(pods, start=6):
        one["metadata"]["resourceVersion"] = str(version)
        objects.put_pod(one)
    found = objects.find("one")
    assert found is not None
    return observation(found)


def deleted_in_the_second_of_its_end(state: dict[str, Any]) -> dict[str, Any]:
    found = pod("one", 6, state)
    found["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:39Z", "deletionGracePeriodSeconds": 30}
    return found


def test_an_end_that_was_reported_before_the_pod_was_deleted_is_believed() -> None:
    seen = seen_in_order(pod("one", 6, RUNNING), pod("one", 6, ENDED), deleted_in_the_second_of_its_end(ENDED))

    assert (seen.phase, seen.lost, seen.exit_code, seen.end_cause) == ("ended", False, 3, "")


@pytest.mark.parametrize("exit_code", [0, 3, 143])
def test_no_exit_code_shows_that_a_process_was_not_killed(exit_code: int) -> None:
    # Given a process that ends, with a code that it may choose itself, in the second in which its pod is deleted
    ended = {"terminated": ENDED["terminated"] | {"exitCode": exit_code}}

    seen = seen_in_order(deleted_in_the_second_of_its_end(RUNNING), deleted_in_the_second_of_its_end(ended))

    assert (seen.phase, seen.lost) == ("ended", True)


@pytest.mark.parametrize("disruption", [{"conditions": True}, {"reason": "Evicted"}])
def test_an_end_that_was_reported_after_its_reason_is_not_believed(disruption: dict[str, Any]) -> None:
    # Given a pod that is to be preempted, or that its node evicts, and is deleted after that
    ending = disrupted(ENDED, "PreemptionByScheduler") if "conditions" in disruption else pod("one", 6, ENDED, **disruption)
    deleted = deleted_in_the_second_of_its_end(ENDED)

    assert seen_in_order(pod("one", 6, RUNNING), ending, deleted).lost


def test_a_process_on_a_node_that_is_lost_is_not_waited_for() -> None:
    # Its kubelet will never report an end, nor remove the pod
    seen = observation(JobAndPod(job("one", 5), disrupted(RUNNING, "DeletionByTaintManager", **DELETED)))

    assert (seen.phase, seen.lost, seen.exit_code) == ("ended", True, None)
    assert seen.started_at is not None


def test_a_process_that_gets_its_grace_still_runs() -> None:
    found = pod("one", 6, RUNNING)
    found["metadata"] |= DELETED

    assert observation(JobAndPod(job("one", 5), found)).phase == "running"
    assert observation(JobAndPod(job("one", 5), disrupted(RUNNING, "PreemptionByScheduler", **DELETED))).phase == "running"


def test_a_pod_that_is_gone_while_its_process_ran_is_lost() -> None:
    seen = observation(JobAndPod(job("one", 5), pod("one", 6, RUNNING), pod_is_gone=True))

    assert (seen.phase, seen.lost, seen.exit_code) == ("ended", True, None)
    assert seen.end_cause == "its pod was deleted from the cluster while it ran"


def test_an_end_at_the_deadline_is_that_of_the_process() -> None:
    seen = observation(JobAndPod(job("one", 5), pod("one", 6, ENDED, phase="Failed", reason="DeadlineExceeded")))

    assert (seen.phase, seen.lost, seen.exit_code) == ("ended", False, 3)


def test_a_process_runs_until_its_end_at_the_deadline_is_reported() -> None:
    # Given a pod of which a kubelet that was just restarted says that it is over, and that its container runs
    found = pod("one", 6, RUNNING, phase="Failed", reason="DeadlineExceeded")

    # I expect its end not to count as unknown, unless the pod goes without one
    assert observation(JobAndPod(job("one", 5), found)).phase == "running"
    assert observation(JobAndPod(job("one", 5), found, pod_is_gone=True)).lost


def test_a_pod_of_an_earlier_job_of_this_name_is_not_this_ones() -> None:
    # Given a Job, its pod, and changes of the pod of an earlier Job of this name, which come later
    objects = ClusterObjects(ended_by_itself)
    objects.put_job(job("one", 5))
    objects.put_pod(pod("one", 6, RUNNING))
    old = pod("one", 7, ENDED)
    old["metadata"] |= {"uid": "old", "ownerReferences": [{"uid": "another"}]}

    objects.put_pod(old)
    objects.pod_deleted(old)

    found = objects.find("one")
    assert found is not None
    assert observation(found).phase == "running"


def test_an_older_state_of_a_pod_does_not_replace_a_newer_one() -> None:
    objects = ClusterObjects(ended_by_itself)
    objects.put_job(job("one", 5))
    objects.put_pod(pod("one", 7, ENDED))

    objects.put_pod(pod("one", 6, RUNNING))

    found = objects.find("one")
    assert found is not None
    assert observation(found).phase == "ended"


def test_the_last_state_of_a_pod_is_known_as_long_as_its_job() -> None:
    objects = ClusterObjects(ended_by_itself)
    objects.put_job(job("one", 5))
    objects.put_pod(pod("one", 6, ENDED))
    objects.pod_deleted(pod("one", 7, ENDED))
    objects.put_job(job("one", 8, failed=1))

    found = objects.find("one")
    assert found is not None
    assert observation(found).exit_code == 3
    objects.job_deleted(found.job)
    assert objects.find("one") is None
    assert not objects._pods
    assert not objects._gone_pods
    assert not objects._ended_pods


# -- starts --------------------------------------------------------------------------------------------


def waiting(reason: str, message: str = "", *, container: str = "job", image: str = "i") -> JobAndPod:
    found = pod("one", 6, phase="Pending")
    found["spec"]["containers"].append({"name": "outputs", "image": "helper"})
    found["status"]["containerStatuses"] = [{"name": container, "state": {"waiting": {"reason": reason, "message": message}}}]
    return JobAndPod(job("one", 5), found)


@pytest.mark.parametrize(
    ("reason", "message", "is_final", "words"),
    [
        ("ErrImageNeverPull", 'Container image "i" is not present', True, "is not on the engine, and the pull policy is never"),
        ("InvalidImageName", "couldn't parse", True, "was not found"),
        ("ErrImagePull", 'failed to resolve reference "i": i: not found', True, "was not found"),
        ("ErrImagePull", "pull access denied, repository does not exist", True, "was not found"),
        ("ErrImagePull", "unexpected status code: 401 Unauthorized", True, "credentials"),
        ("ErrImagePull", "no match for platform in manifest", True, "does not exist for the platform"),
        ("ErrImagePull", "dial tcp: connection refused", False, "cannot be reached"),
        ("ErrImagePull", "429 Too Many Requests", False, "too many requests"),
        ("ImagePullBackOff", 'Back-off pulling image "i": not found', False, ""),
    ],
)
def test_a_pull_that_failed(reason: str, message: str, is_final: bool, words: str) -> None:
    state = progress(waiting(reason, message))

    assert isinstance(state.failure, ImageUnavailable)
    assert state.is_final == is_final
    assert words in str(state.failure)


def test_no_word_of_a_registry_is_repeated() -> None:
    state = progress(waiting("ErrImagePull", 'unexpected status from GET https://10.0.0.1/v2/: 404 "secret words"'))

    assert "secret" not in str(state.failure)
    assert "10.0.0.1" not in str(state.failure)


def test_the_image_of_a_helper_is_the_operators() -> None:
    state = progress(waiting("ErrImageNeverPull", container="outputs"))

    assert isinstance(state.failure, EngineInTrouble)
    assert "KUBE_HELPER_IMAGE" in str(state.failure)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("failed to generate spec: no command specified", "the image has no command"),
        ("unable to find user nosuchuser: no matching entries in passwd file", "user is not in its /etc/passwd"),
        ("container has runAsNonRoot and image will run as root", "which the cluster does not allow"),
        ('exec: "nosuch": executable file not found in $PATH', "the program does not exist"),
    ],
)
def test_a_container_that_cannot_be_created_is_the_jobs_fault(message: str, words: str) -> None:
    state = progress(waiting("CreateContainerError", message))

    assert isinstance(state.failure, StartFailed)
    assert state.is_final
    assert words in str(state.failure)


def test_an_unknown_failure_may_pass() -> None:
    state = progress(waiting("CreateContainerError", "context deadline exceeded"))

    assert isinstance(state.failure, StartRefused)
    assert not state.is_final


def test_a_process_that_could_not_be_started_has_not_run() -> None:
    error = {"exitCode": 128, "reason": "StartError", "message": "exec format error", "startedAt": "1970-01-01T00:00:00Z"}
    found = JobAndPod(job("one", 5), pod("one", 6, {"terminated": error}, phase="Failed"))

    assert observation(found).phase == "created"
    assert isinstance(death(found), StartFailed)


KILLED = {"exitCode": 137, "reason": "OOMKilled"}
NOT_STARTED = {"exitCode": 128, "reason": "StartError", "message": "exec format error"}


@pytest.mark.parametrize(("ended", "words"), [(KILLED, "exit code 137: OOMKilled"), (NOT_STARTED, "exec format error")])
def test_a_helper_of_inputs_that_fails_is_a_failed_start(ended: dict[str, Any], words: str) -> None:
    found = pod("one", 6, phase="Failed", initContainerStatuses=[{"name": "inputs", "state": {"terminated": ended}}])

    error = death(JobAndPod(job("one", 5, requested=False), found))
    assert isinstance(error, StartRefused)
    assert words in error.words

    # unless the cluster has ended it
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert isinstance(death(JobAndPod(job("one", 5, requested=False), found)), ContainerNotFound)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ('Usage of EmptyDir volume "workspace" exceeds the limit "1Gi". ', StartFailed),
        ("The node was low on resource: ephemeral-storage.", ContainerNotFound),
    ],
)
def test_a_pod_that_is_evicted_before_it_ran_is_made_anew_unless_its_inputs_are_too_large(
    message: str, error: type[JobError]
) -> None:
    found = JobAndPod(job("one", 5, requested=False), pod("one", 6, phase="Failed", reason="Evicted", message=message))

    assert observation(found).phase == "created"
    assert isinstance(death(found), error)


def test_a_pod_that_its_node_rejects_was_removed_before_it_ran() -> None:
    assert isinstance(death(JobAndPod(job("one", 5), pod("one", 6, phase="Failed", reason="OutOfcpu"))), ContainerNotFound)


def test_the_scheduler_is_quoted_without_what_it_says_of_preemption() -> None:
    message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found = pod("one", 6, phase="Pending", conditions=[condition])
    del found["spec"]["nodeName"]

    state = progress(JobAndPod(job("one", 5), found))

    assert state.waiting_for == "a node of the cluster: 0/1 nodes are available: 1 Insufficient cpu."
    assert not state.is_usual
