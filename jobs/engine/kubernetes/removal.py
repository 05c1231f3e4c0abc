"""Removes Jobs and their pods, unless they have changed meanwhile.

A kubelet reports a process up to a second after its start. So a Job whose process must not have run is removed only after the
node of its pod has said so for good. It does if the pod is deleted with a grace: it ends all containers, and reports how they
have ended, before the pod is gone. A pod that is deleted without one is gone at once, and its node reports nothing.
"""

from typing import Final

from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod, Object
from jobs.engine.kubernetes.api.job_changes import JobChanges
from jobs.engine.kubernetes.api.job_view import JobView
from jobs.engine.kubernetes.states.observations import observation
from jobs.engine.kubernetes.states.pod_status import may_run
from jobs.errors import ContainerConflict, ContainerNotFound, EngineUnavailable

_MAX_CHANGES: Final = 20  # of a Job by the cluster while it is removed


class Removal:
    """The removal of Jobs from one namespace."""

    def __init__(self, client: ClusterClient, view: JobView, changes: JobChanges) -> None:
        self._client = client
        self._view = view
        self._changes = changes

    def remove(self, name: str, *, force: bool) -> None:
        """See `Engine.remove`."""
        for _ in range(_MAX_CHANGES):
            try:
                found = self._view.find(name)
            except ContainerNotFound:
                return
            if not force and observation(found).phase in ("starting", "running"):
                raise ContainerConflict(f"the container {name} runs, or is about to")
            answer = self._changes.delete(found)
            if answer.failed and answer.status not in (404, 409):
                raise answer.error()
            if answer.status != 409:
                self._view.objects.job_deleted(found.job)
                self._delete_pod(found)
                return
            self._look_again(name)
        raise EngineUnavailable(f"the cluster changes the Job {name} all the time")

    def withdraw(self, name: str) -> None:
        """See `Engine.withdraw`."""
        try:
            found = self._view.find(name)
            if observation(found).phase == "starting":
                self._end_pod(found)
            if observation(self._view.find(name)).phase != "created":
                raise ContainerConflict(f"the process of the container {name} has run, or may have")
        except ContainerNotFound:
            return
        self.remove(name, force=False)

    def _end_pod(self, found: JobAndPod) -> None:
        """Delete the pod of a Job, which gets no other one, and wait until it is certain whether its process has run.

        A worker that is killed meanwhile leaves a Job that is to run. What its pod says decides for the next one, too.
        """
        if found.pod is None:
            raise ContainerConflict(f"the Job {found.key} is about to get its pod")
        self._delete(found.pod, self._client.intervals.cluster_withdrawal)
        patience = self._client.intervals.cluster_stop
        if self._view.wait(found.key, _is_decided, self._client.interrupt, patience) is None:
            raise EngineUnavailable("the node does not report whether the process of the container has run")

    def _look_again(self, name: str) -> None:
        """Record what has become of a Job."""
        try:
            self._view.ask(name)
        except ContainerNotFound:
            found = self._view.objects.find(name)
            if found is not None:
                self._view.objects.job_deleted(found.job)

    def _delete_pod(self, found: JobAndPod) -> None:
        """Delete a pod at once in which something runs, or may run yet: the cluster would do so later, and give it its grace."""
        if found.pod is None or found.pod_is_gone or not may_run(found.pod):
            return
        self._delete(found.pod, 0)

    def _delete(self, pod: Object, grace: int) -> None:
        path = self._client.core("pods", pod["metadata"]["name"])
        body = {"gracePeriodSeconds": grace, "preconditions": {"uid": pod["metadata"]["uid"]}}
        answer = self._client.exchange("DELETE", path, body=body)
        if answer.failed and answer.status not in (404, 409):
            raise answer.error()


def _is_decided(found: JobAndPod | None) -> bool | None:
    return found is None or observation(found).phase != "starting" or None
