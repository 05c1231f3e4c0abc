"""Changes of Jobs, each of which happens only if the Job is still as the caller believes."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from jobs.engine.kubernetes.api.cluster_client import JSON_PATCH, Answer, ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod, Object
from jobs.engine.kubernetes.names import NAME_LABEL, NOT_REQUESTED, QUEUE_LABEL, REQUESTED, START_LABEL

_NOT_AS_TESTED: Final = 422
_BACKGROUND: Final = "Background"  # the cluster deletes the pod after the Job

Operation = dict[str, Any]


class JobChanges:
    """Requests that change the Jobs of one namespace. Their answers are recorded, so who asks next sees them."""

    def __init__(self, client: ClusterClient, record: Callable[[Object], None], queue: str) -> None:
        """`record` is told about each changed Job. `queue` is that of Kueue, which starts Jobs itself; empty: there is none."""
        self._client = client
        self._record = record
        self._queue = queue

    def request_start(self, found: JobAndPod, name: str) -> bool:
        """Start a Job that was not started; return False if it is not as `found` any more."""
        operations = [_is_label(NAME_LABEL, name), _is_label(START_LABEL, NOT_REQUESTED), _set_label(START_LABEL, REQUESTED)]
        return self._patch(found, [*operations, *self._release(found)])

    def release(self, found: JobAndPod, name: str) -> bool:
        """Let the cluster make the pod of a Job whose inputs it takes before its start; return False as above."""
        operations = self._release(found)
        return not operations or self._patch(found, [_is_label(NAME_LABEL, name), *operations])

    def take_back(self, found: JobAndPod, name: str) -> bool:
        """Undo the start of a Job whose process does not run yet: its pod is deleted. Return False as above."""
        operations = [_is_label(NAME_LABEL, name), _set_label(START_LABEL, NOT_REQUESTED), _set("/spec/suspend", True)]
        if self._queue:
            operations.append({"op": "remove", "path": _label_path(QUEUE_LABEL)})
        return self._patch(found, operations)

    def rename(self, found: JobAndPod, name: str, new_name: str) -> bool:
        """Change the name by which a Job is addressed; return False as above."""
        return self._patch(found, [_is_label(NAME_LABEL, name), _set_label(NAME_LABEL, new_name)])

    def delete(self, found: JobAndPod) -> Answer:
        """Delete a Job, and with it its pod, if it has not changed since `found`."""
        metadata = found.job["metadata"]
        preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"propagationPolicy": _BACKGROUND, "preconditions": preconditions}
        return self._client.exchange("DELETE", self._client.jobs(found.key), body=body)

    def _release(self, found: JobAndPod) -> list[Operation]:
        if self._queue and QUEUE_LABEL not in found.job["metadata"]["labels"]:
            return [_set_label(QUEUE_LABEL, self._queue)]
        return [_set("/spec/suspend", False)] if found.job["spec"].get("suspend") and not self._queue else []

    def _patch(self, found: JobAndPod, operations: Sequence[Operation]) -> bool:
        tests = [{"op": "test", "path": "/metadata/uid", "value": found.job["metadata"]["uid"]}]
        answer = self._client.exchange("PATCH", self._client.jobs(found.key), body=[*tests, *operations], content_type=JSON_PATCH)
        if answer.status in (404, _NOT_AS_TESTED):
            return False
        if answer.failed:
            raise answer.error()
        self._record(answer.data)
        return True


def _label_path(label: str) -> str:
    return "/metadata/labels/" + label.replace("~", "~0").replace("/", "~1")


def _is_label(label: str, value: str) -> Operation:
    return {"op": "test", "path": _label_path(label), "value": value}


def _set_label(label: str, value: str) -> Operation:
    return _set(_label_path(label), value)


def _set(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}
