"""Waits until the cluster has got a pod to the point at which it is needed."""

import logging
import time
from collections.abc import Callable

from jobs.engine.kubernetes.cluster_objects import JobAndPod
from jobs.engine.kubernetes.job_view import JobView
from jobs.engine.kubernetes.names import NAME_LABEL
from jobs.engine.kubernetes.observations import is_dead
from jobs.engine.kubernetes.start_progress import death, progress
from jobs.errors import ContainerNotFound, JobError
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)


class PodStart:
    """One wait. It ends early if the pod is gone, or cannot get there."""

    def __init__(self, name: str, waiting_for: Callable[[str], None], pull_timeout: float) -> None:
        """`pull_timeout` is how long, in seconds, a node may take to pull images that it may get after all."""
        self._name = name
        self._waiting_for = waiting_for
        self._pull_timeout = pull_timeout
        self._phrase = ""
        self._on_node_since: float | None = None

    def wait(self, view: JobView, found: JobAndPod, is_there: Callable[[JobAndPod], bool], interrupt: Interrupt) -> None:
        """Return when `is_there` is true of the Job.

        Raise `ContainerNotFound`, `ImageUnavailable`, `StartFailed`, `StartRefused`, `EngineInTrouble`.
        """
        done = False
        while not done:
            done = bool(view.wait(found.key, lambda now: self._look(now, is_there) or None, interrupt, self._time_left()))

    def _look(self, found: JobAndPod | None, is_there: Callable[[JobAndPod], bool]) -> bool:
        if found is None or found.job["metadata"]["labels"].get(NAME_LABEL) != self._name:
            raise ContainerNotFound(f"there is no Job {self._name} in the cluster any more")
        if is_there(found):
            return True
        if is_dead(found):
            raise self._logged(death(found))
        state = progress(found)
        if state.is_on_node and self._on_node_since is None:
            self._on_node_since = time.monotonic()
        if state.failure is not None and (state.is_final or self._time_left() == 0):
            raise self._logged(state.failure)
        if state.waiting_for != self._phrase:
            self._phrase = state.waiting_for
            self._waiting_for(self._phrase)
        return False

    def _time_left(self) -> float | None:
        if self._on_node_since is None:
            return None
        return max(0.0, self._on_node_since + self._pull_timeout - time.monotonic())

    def _logged(self, error: JobError) -> JobError:
        logger.warning(
            "the cluster did not start a container: %s", getattr(error, "words", error), extra={"container": self._name}
        )
        return error
