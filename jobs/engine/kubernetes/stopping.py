"""Stops containers and keeps what is left of them: exit code, log and outputs.

A pod that is deleted loses its log. One whose `activeDeadlineSeconds` have passed keeps it: the kubelet sends SIGTERM to its
containers, SIGKILL after the pod's grace, and reports their exit codes.
"""

from typing import Final

from jobs.engine.kubernetes.cluster_client import MERGE_PATCH, ClusterClient
from jobs.engine.kubernetes.cluster_objects import JobAndPod, Object
from jobs.engine.kubernetes.job_changes import JobChanges
from jobs.engine.kubernetes.job_view import JobView
from jobs.engine.kubernetes.observations import observation
from jobs.errors import EngineUnavailable

_AT_ONCE: Final = {"spec": {"activeDeadlineSeconds": 1}}  # 0 is not allowed; may only become less


class Stopping:
    """The stops of containers in one namespace."""

    def __init__(self, client: ClusterClient, view: JobView, changes: JobChanges) -> None:
        self._client = client
        self._view = view
        self._changes = changes

    def stop(self, name: str, grace: float) -> None:
        """See `Engine.stop`."""
        found = self._view.find(name)
        if observation(found).phase == "starting" and self._changes.take_back(found, name):
            return
        found = self._view.find(name)
        if observation(found).phase != "running" or found.pod is None:
            return
        self._end(found.pod)
        patience = max(grace, float(found.pod["spec"].get("terminationGracePeriodSeconds") or 0))
        timeout = patience + self._client.intervals.cluster_stop
        if not self._view.wait(found.key, _has_ended, self._client.interrupt, timeout):
            raise EngineUnavailable("the node does not report that the container has ended")

    def _end(self, pod: Object) -> None:
        path = self._client.core("pods", pod["metadata"]["name"])
        answer = self._client.exchange("PATCH", path, body=_AT_ONCE, content_type=MERGE_PATCH)
        if answer.failed and answer.status != 404:
            raise answer.error()


def _has_ended(found: JobAndPod | None) -> bool | None:
    return found is None or observation(found).phase != "running" or None
