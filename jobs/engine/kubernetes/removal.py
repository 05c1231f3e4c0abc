"""Removes Jobs and their pods, unless they have changed meanwhile."""

from typing import Final

from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod
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
        path = self._client.core("pods", found.pod["metadata"]["name"])
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": found.pod["metadata"]["uid"]}}
        answer = self._client.exchange("DELETE", path, body=body)
        if answer.failed and answer.status not in (404, 409):
            raise answer.error()
