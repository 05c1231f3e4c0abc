"""Stops containers and keeps what is left of them: exit code, log and outputs.

A pod that is deleted loses its log. One whose `activeDeadlineSeconds` have passed keeps it: the kubelet sends SIGTERM to its
containers, SIGKILL after the pod's grace, and reports their exit codes. A helper that must outlive the job's process sends the
signals itself.

So a stop without a grace takes the pod's if no helper runs. Only a deletion has a grace of its own, and it would lose the rest of
the log and the exit code. Nothing needs that: only a job that fills a disk may not wait, and the cluster ends such a job itself.
"""

import logging
import signal
from typing import Final

from jobs.engine import container_init
from jobs.engine.kubernetes.api.cluster_client import MERGE_PATCH, ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod, Object
from jobs.engine.kubernetes.api.job_changes import JobChanges
from jobs.engine.kubernetes.api.job_view import JobView
from jobs.engine.kubernetes.pod_helpers import PodHelpers, container_of, outputs_are_open
from jobs.engine.kubernetes.states.observations import observation
from jobs.errors import EngineUnavailable, JobError

logger = logging.getLogger(__name__)

_AT_ONCE: Final = {"spec": {"activeDeadlineSeconds": 1}}  # 0 is not allowed


class Stopping:
    """The stops of containers in one namespace."""

    def __init__(self, client: ClusterClient, view: JobView, changes: JobChanges, helpers: PodHelpers) -> None:
        self._client = client
        self._view = view
        self._changes = changes
        self._helpers = helpers

    def stop(self, name: str, grace: float) -> None:
        """See `Engine.stop`."""
        found = self._view.find(name)
        if observation(found).phase == "starting":
            if self._changes.take_back(found, name):
                return
            found = self._view.ask(name)
        if observation(found).phase != "running" or found.pod is None:
            return
        if not (outputs_are_open(found) and self._stop_by_helper(found, grace)):
            self._stop_by_node(found.key, found.pod, grace)

    def _stop_by_helper(self, found: JobAndPod, grace: float) -> bool:
        """Have the helper end the process; return False if it cannot."""
        # Our init passes SIGTERM on to all processes, and nothing should get it twice.
        first_only = container_of(found.job).get("command", [""])[0] == container_init.COMMAND
        try:
            files = self._helpers.files(found)
            files.signal(signal.SIGTERM, first_only=first_only)
            if self._ends(found.key, grace):
                return True
            files.signal(signal.SIGKILL)
        except JobError as error:
            self._client.interrupt.check()
            logger.warning("the helper of a pod does not stop its process: %s", error, extra={"container": found.key})
            return False
        return self._ends(found.key, self._client.intervals.cluster_kill)

    def _stop_by_node(self, key: str, pod: Object, grace: float) -> None:
        path = self._client.core("pods", pod["metadata"]["name"])
        answer = self._client.exchange("PATCH", path, body=_AT_ONCE, content_type=MERGE_PATCH)
        if answer.failed and answer.status != 404:
            raise answer.error()
        patience = max(grace, float(pod["spec"].get("terminationGracePeriodSeconds") or 0))
        if not self._ends(key, patience + self._client.intervals.cluster_stop):
            raise EngineUnavailable("the node does not report that the container has ended")

    def _ends(self, key: str, seconds: float) -> bool:
        """Wait for the end of a process; return whether it has come."""
        return self._view.wait(key, _has_ended, self._client.interrupt, seconds) is not None


def _has_ended(found: JobAndPod | None) -> bool | None:
    return found is None or observation(found).phase != "running" or None
