"""What the status of a pod means: whether the job's process runs, how it has ended, and why. No I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jobs.engine.kubernetes.api.cluster_objects import Object
from jobs.engine.kubernetes.names import CONTAINER

_NOT_STARTED: Final = ("StartError", "ContainerCannotRun")  # reasons of a terminated container whose start has failed

# What containerd says if a start has failed after it has made the process, and what it adds if the process did not begin.
_IN_START: Final = "failed to start containerd task"
_NOT_BEGUN: Final = "OCI runtime start failed"

_UNKNOWN_END: Final = "ContainerStatusUnknown"  # the node no longer knows how it ended
_OOM_KILLED: Final = "OOMKilled"
_AT_DEADLINE: Final = "DeadlineExceeded"  # a kubelet that was restarted may say so of the pod before it has ended the process

# What the kubelet says if the pod has written too much, and not if its node has too little space.
_OVER_DISK_LIMIT: Final = re.compile(
    r"Usage of EmptyDir volume|ephemeral local storage usage exceeds|exceeded its local ephemeral storage limit"
)

# Reasons of the condition DisruptionTarget.
_DISRUPTIONS: Final[Mapping[str, str]] = {
    "PreemptionByScheduler": "the scheduler ended it to make room for a pod of a higher priority",
    "DeletionByTaintManager": "its node was lost, or was tainted so that its pods have to leave",
    "EvictionByEvictionAPI": "it was evicted from its node, as when a node is drained",
    "DeletionByPodGC": "its node was removed from the cluster",
    "TerminationByKubelet": "its node ended it, because it ran short of resources or shut down",
}
_NODE_IS_LOST: Final = "DeletionByTaintManager"
_WITHOUT_NODE: Final = (_NODE_IS_LOST, "DeletionByPodGC")  # reasons to end a pod whose node does not answer
_POD_DELETED: Final = "its pod was deleted from the cluster while it ran"
_START_CUT_OFF: Final = "its node was cut off while it started the process, which may have run"
_END_UNKNOWN: Final = "its node no longer knows how it ended, as after a restart"


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How the job's process has ended."""

    exit_code: int | None
    started_at: datetime | None
    finished_at: datetime | None
    oom_killed: bool = False
    lost: bool = False
    over_disk_limit: bool = False
    cause: str = ""


def container_state(pod: Object, name: str = CONTAINER) -> Mapping[str, Any]:
    """Return the state of a container of the pod: `waiting`, `running` or `terminated`; empty if its node has reported none."""
    state: Mapping[str, Any] = _container(pod, name).get("state") or {}
    return state


def has_run(pod: Object) -> bool:
    """Return whether the job's process has run, as far as the cluster has reported."""
    reported = _container(pod)
    state = reported.get("state") or {}
    return "running" in state or ("terminated" in state and not _never_began(reported))


def never_runs(pod: Object) -> bool:
    """Return whether it is certain that the job's process has not run, and never will.

    Only a node can say so of a pod that it has: it may have started the process and not have reported it. If it is silent, the
    cluster does not know, even if it counts the pod as over. A pod that is being deleted gets no node.
    """
    if has_run(pod):
        return False
    if not pod["spec"].get("nodeName"):
        return bool(pod["metadata"].get("deletionTimestamp"))
    if "terminated" in container_state(pod):
        return True
    return is_over(pod) and condition(pod, "DisruptionTarget").get("reason") not in _WITHOUT_NODE


def may_run(pod: Object) -> bool:
    """Return whether a container of the pod runs, be it the job's or a helper's, or may run yet."""
    status = pod.get("status", {})
    found = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    return any("running" in (one.get("state") or {}) for one in found) or not (has_run(pod) or is_over(pod))


def is_over(pod: Object) -> bool:
    """Return whether nothing of the pod runs any more, nor will."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def is_over_disk_limit(pod: Object) -> bool:
    """Return whether its node has evicted the pod because that has written too much."""
    return _status_text(pod, "reason") == "Evicted" and bool(_OVER_DISK_LIMIT.search(_status_text(pod, "message")))


def start_failure(pod: Object, name: str = CONTAINER) -> str:
    """Return the container runtime's message if it could not start the process of a container; empty otherwise."""
    terminated = container_state(pod, name).get("terminated") or {}
    return str(terminated.get("message") or "no message") if terminated.get("reason") in _NOT_STARTED else ""


def preparation_failure(pod: Object) -> str:
    """Return how a container that runs before the job's has failed by itself; empty if none has."""
    if _is_ended_by_cluster(pod) or _status_text(pod, "reason"):
        return ""
    for found in pod.get("status", {}).get("initContainerStatuses") or ():
        terminated = (found.get("state") or {}).get("terminated")
        if terminated and terminated["exitCode"] != 0:
            return how_ended(pod, found["name"])
    return ""


def how_ended(pod: Object, name: str) -> str:
    """Return how a container of the pod that has ended did so, for operators."""
    terminated = container_state(pod, name)["terminated"]
    cause = terminated.get("message") or terminated.get("reason")
    return f"the container {name} has ended with exit code {terminated['exitCode']}: {cause}"


def ended_by_itself(pod: Object) -> bool:
    """Return whether the process of the pod has ended, and the cluster had no reason to end it by then."""
    return "terminated" in container_state(pod) and not _is_ended_by_cluster(pod)


def process_end(pod: Object, *, is_gone: bool, by_itself: bool = False) -> ProcessEnd | None:
    """Return how the process of a pod in which it has run has ended; None while it runs.

    `by_itself`: an earlier state of the pod has shown that it had `ended_by_itself`. No exit code shows that: a program that gets
    SIGTERM may choose any.
    """
    terminated = container_state(pod).get("terminated")
    if terminated is None:
        cause = _why_lost(pod, is_gone=is_gone)
        started_at = parse_time((container_state(pod).get("running") or {}).get("startedAt"))
        return ProcessEnd(None, started_at, None, lost=True, cause=cause) if cause else None
    started_at, finished_at = parse_time(terminated.get("startedAt")), parse_time(terminated.get("finishedAt"))
    if started_at and finished_at:
        finished_at = max(started_at, finished_at)
    if terminated.get("reason") in _NOT_STARTED:
        return ProcessEnd(None, started_at, finished_at, lost=True, cause=_START_CUT_OFF)
    code = int(terminated["exitCode"])
    reason, message = _status_text(pod, "reason"), _status_text(pod, "message")
    if is_over_disk_limit(pod):
        return ProcessEnd(code, started_at, finished_at, over_disk_limit=True, cause="its node ended it: " + _sentence(message))
    if terminated.get("reason") == _UNKNOWN_END:
        return ProcessEnd(None, started_at, finished_at, lost=True, cause=disruption(pod) or _END_UNKNOWN)
    if reason == "Evicted":
        return ProcessEnd(code, started_at, finished_at, lost=True, cause="its node evicted it: " + _sentence(message))
    if not by_itself and _was_ended_by_cluster(pod, finished_at):
        return ProcessEnd(code, started_at, finished_at, lost=True, cause=disruption(pod) or _POD_DELETED)
    return ProcessEnd(code, started_at, finished_at, oom_killed=terminated.get("reason") == _OOM_KILLED)


def parse_time(text: str | None) -> datetime | None:
    """Return the time in an RFC 3339 text, or None for none and for the beginning of Unix time, which means never."""
    if not text:
        return None
    time = datetime.fromisoformat(text).astimezone(UTC)
    return time if time.year > 1970 else None


def condition(found: Object, kind: str) -> Mapping[str, Any]:
    """Return the condition of this type if it is true; empty otherwise."""
    for one in found.get("status", {}).get("conditions") or ():
        if one["type"] == kind and one["status"] == "True":
            true: Mapping[str, Any] = one
            return true
    return {}


def disruption(pod: Object) -> str:
    """Return why the cluster ends the pod, or has ended it; empty if it does not say."""
    return _DISRUPTIONS.get(condition(pod, "DisruptionTarget").get("reason", ""), "")


def _container(pod: Object, name: str = CONTAINER) -> Mapping[str, Any]:
    """Return what its node has reported about a container; empty if nothing."""
    status = pod.get("status", {})
    for found in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
        if found["name"] == name:
            reported: Mapping[str, Any] = found
            return reported
    return {}


def _never_began(terminated: Mapping[str, Any]) -> bool:
    """Return whether a terminated container had no process: its start failed, or its pod was ended before it was made.

    When a node ends a pod, it does not know how those containers have ended that its runtime does not have. One that the runtime
    had before has an id, or a last state.
    """
    state = terminated["state"]["terminated"]
    was_made = terminated.get("containerID") or terminated.get("lastState")
    if state.get("reason") in _NOT_STARTED:
        return not _was_cut_off(str(state.get("message") or ""))
    return state.get("reason") == _UNKNOWN_END and not was_made


def _was_cut_off(message: str) -> bool:
    """Return whether the answer to a start was lost, so that the process may have begun: if a kubelet is killed, say."""
    return _IN_START in message and _NOT_BEGUN not in message


def _why_lost(pod: Object, *, is_gone: bool) -> str:
    """Return why a process of which no end was reported does not run any more, or is about to be ended; empty if it runs."""
    if _status_text(pod, "reason") == "Evicted":
        return "its node evicted it: " + _sentence(_status_text(pod, "message")) if is_over(pod) else ""
    if is_gone or (is_over(pod) and _status_text(pod, "reason") != _AT_DEADLINE):
        return disruption(pod) or _POD_DELETED
    if pod["metadata"].get("deletionTimestamp") and condition(pod, "DisruptionTarget").get("reason") == _NODE_IS_LOST:
        return disruption(pod)  # its node does not answer, so nothing more will be reported
    return ""


def _is_ended_by_cluster(pod: Object) -> bool:
    """Return whether the cluster ends the pod, or has ended it."""
    is_evicted = _status_text(pod, "reason") == "Evicted"
    return is_evicted or bool(pod["metadata"].get("deletionTimestamp") or condition(pod, "DisruptionTarget"))


def _was_ended_by_cluster(pod: Object, finished_at: datetime | None) -> bool:
    """Return whether the process may have ended because its pod was deleted, or about to be; times are whole seconds."""
    metadata = pod["metadata"]
    deleted_at = parse_time(metadata.get("deletionTimestamp"))  # with the grace
    if deleted_at is not None:
        asked_at = deleted_at - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        return finished_at is None or finished_at >= asked_at
    disrupted_at = parse_time(condition(pod, "DisruptionTarget").get("lastTransitionTime"))
    return disrupted_at is not None and (finished_at is None or finished_at >= disrupted_at)


def _status_text(pod: Object, member: str) -> str:
    return str(pod.get("status", {}).get(member) or "")


def _sentence(message: str) -> str:
    return message.strip().rstrip(".")[:500]
