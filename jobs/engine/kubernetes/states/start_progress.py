"""What keeps a pod from running its job's process: something to wait for, or a failure. No I/O."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobs.engine import image_errors
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod, Object
from jobs.engine.kubernetes.names import CONTAINER
from jobs.engine.kubernetes.states.pod_status import is_over_disk_limit, preparation_failure, start_failure
from jobs.errors import ContainerNotFound, EngineInTrouble, ImageUnavailable, JobError, StartFailed, StartRefused

NO_POD: Final = "the cluster to make its pod"
_NO_NODE: Final = "a node of the cluster"
_ON_NODE: Final = "its node to pull its image and create its container"
_REMOVED: Final = "the cluster removed the pod before its process ran"
_LARGE_INPUTS: Final = (
    "its node evicted the pod before its process ran, because its inputs took more than it may write (DISK_LIMIT)"
)
_UNKNOWN_CAUSE: Final = "the cluster could not start the container; the service's log has the details"

_PULL_FAILED: Final = "ErrImagePull"
_NEVER_PULLED: Final = "ErrImageNeverPull"
_INVALID_NAME: Final = "InvalidImageName"
_WAITS_FOR_PULL: Final = (_PULL_FAILED, "ImagePullBackOff", "RegistryUnavailable")
_NOT_CREATED: Final = ("CreateContainerError", "CreateContainerConfigError", "RunContainerError", "PreCreateHookError")

# What the kubelet and the container runtime say if the job or its image is at fault. The first match counts.
_JOBS_FAULT: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), sentence)
    for pattern, sentence in (
        (r"no command specified", "the image has no command, and the job does not specify one"),
        (r"unable to find user|no users found|no matching entries in passwd", "the image's user is not in its /etc/passwd"),
        (r"unable to find group|no matching entries in group", "the group of the image's user is not in its /etc/group"),
        (r"runAsNonRoot", "the image's user is root, which the cluster does not allow"),
        (r"mkdir .*not a directory|not a directory", "the workspace or one of its parents is not a directory in the image"),
        (r"argument list too long", "the command and the environment, with what the image adds, are longer than Linux allows"),
        (r"exec format error", "exec format error: the program is for another architecture, or is not an executable"),
        (r"executable file not found|no such file or directory", "the program does not exist"),
        (r"permission denied", "the program is not executable"),
        (r"minimum memory limit|memory limit too low|oom-killed", "the job's memory limit is too low for a process to start"),
    )
)


@dataclass(frozen=True, slots=True)
class Progress:
    """Why the process of a container whose start was requested does not run yet."""

    waiting_for: str  # as a phrase
    failure: JobError | None = None
    is_usual: bool = False  # every container waits for this, most of them less than a second
    is_final: bool = False  # the failure will not pass by itself
    is_on_node: bool = False  # the scheduler has found a node


def progress(found: JobAndPod) -> Progress:
    """Return what a pod that has not run its process yet waits for."""
    pod = found.pod
    if pod is None:
        return Progress(NO_POD, is_usual=True)
    unscheduled = _unscheduled(pod)
    if unscheduled:
        return Progress(unscheduled, is_usual=unscheduled == _NO_NODE)
    for name, image, waiting in _waiting(pod):
        failure = _failure(waiting, image, is_job=name == CONTAINER or image == _image(pod))
        if failure is not None:
            return failure
    return Progress(_ON_NODE, is_usual=True, is_on_node=True)


def death(found: JobAndPod) -> JobError:
    """Return why a container has not run and never will (see `observations.is_dead`)."""
    if found.pod is None:
        return ContainerNotFound(_REMOVED)
    if is_over_disk_limit(found.pod):
        return StartFailed(_LARGE_INPUTS)  # another pod would get the same inputs
    if words := start_failure(found.pod):
        return _start_error(words)
    words = preparation_failure(found.pod)
    return StartRefused(words, _UNKNOWN_CAUSE) if words else ContainerNotFound(_REMOVED)


def helper_failure(pod: Object, helper: str) -> Progress | None:
    """Return why a helper of a pod whose process has run cannot be started, if anything is known to have failed."""
    found = (_failure(waiting, image, is_job=False) for name, image, waiting in _waiting(pod) if name == helper)
    return next(found, None)


def _failure(waiting: Mapping[str, Any], image: str, *, is_job: bool) -> Progress | None:
    """Return the failure that a waiting container reports, if any. The text of a failed pull may be the registry's own."""
    reason, message = waiting.get("reason"), str(waiting.get("message") or "")
    if reason in _NOT_CREATED:
        error = _start_error(message)
        return Progress(_ON_NODE, error, is_final=isinstance(error, StartFailed), is_on_node=True)
    if reason == _NEVER_PULLED:
        sentence, is_final = image_errors.never_pulled(image), True
    elif reason == _INVALID_NAME:
        sentence, is_final = image_errors.not_found(image), True
    elif reason in _WAITS_FOR_PULL:
        sentence = image_errors.explain(message, image)
        is_final = reason == _PULL_FAILED and image_errors.is_final(message)
    else:
        return None
    error = ImageUnavailable(sentence) if is_job else EngineInTrouble(f"{sentence} (KUBE_HELPER_IMAGE)")
    return Progress(_ON_NODE, error, is_final=is_final, is_on_node=True)


def _start_error(message: str) -> JobError:
    for pattern, sentence in _JOBS_FAULT:
        if pattern.search(message):
            return StartFailed(sentence)
    return StartRefused(message, _UNKNOWN_CAUSE)


def _unscheduled(pod: Object) -> str:
    """Return what a pod that has no node waits for, in the scheduler's words; empty if it has one."""
    if pod["spec"].get("nodeName"):
        return ""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False" and condition.get("message"):
            message = str(condition["message"]).partition(" preemption: ")[0]
            return f"a node of the cluster: {message}"
    return _NO_NODE


def _waiting(pod: Object) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the name, image and state of the containers that wait."""
    images = {one["name"]: one["image"] for one in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))}
    status = pod.get("status", {})
    for found in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (found.get("state") or {}).get("waiting")
        if waiting:
            yield found["name"], images.get(found["name"], ""), waiting


def _image(pod: Object) -> str:
    return next(str(one["image"]) for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
