"""Waits until the cluster has got a pod to the point at which it is needed."""

import logging
import time
from collections.abc import Callable

from jobs.engine.kubernetes.api.cluster_objects import JobAndPod
from jobs.engine.kubernetes.api.job_view import JobView
from jobs.engine.kubernetes.names import NAME_LABEL
from jobs.engine.kubernetes.states.observations import is_dead, was_requested
from jobs.engine.kubernetes.states.start_progress import Progress, death, progress
from jobs.errors import ContainerNotFound, JobError, StartLost
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)


class PodStart:
    """One wait. It ends early if the pod is gone, or cannot get there."""

    def __init__(self, name: str, waiting_for: Callable[[str], None], *, pull_timeout: float, patience: float) -> None:
        """Prepare to wait for a container. Times are in seconds.

        `pull_timeout` is for a node to pull an image that it may get after all. What every pod waits for is reported only after
        `patience`.
        """
        self._name = name
        self._waiting_for = waiting_for
        self._pull_timeout = pull_timeout
        self._patience = patience
        self._reported = ""
        self._usual_since: float | None = None
        self._on_node_since: float | None = None

    def wait(self, view: JobView, found: JobAndPod, is_there: Callable[[JobAndPod], bool], interrupt: Interrupt) -> None:
        """Return when `is_there` is true of the Job.

        Raise `ContainerNotFound`, `ImageUnavailable`, `StartFailed`, `StartRefused`, `StartLost`, `EngineInTrouble`.
        """

        def look(now: JobAndPod | None) -> bool | None:
            if now is None:
                self._check_orphan(view.objects.of(found.job))
                return None
            return self._look(now, is_there) or None

        with view.objects.watching(found.key):  # so that the pod of a Job that is deleted meanwhile is known
            while view.wait(found.key, look, interrupt, self._time_left()) is None:
                pass

    def _check_orphan(self, found: JobAndPod) -> None:
        """Raise what has become of a deleted Job, unless its pod has no node: then the cluster is about to delete that, too."""
        if not was_requested(found.job) or is_dead(found):
            raise self._gone()
        if found.pod is None or found.pod["spec"].get("nodeName"):
            raise deleted_in_start()

    def _gone(self) -> ContainerNotFound:
        return ContainerNotFound(f"there is no Job {self._name} in the cluster any more")

    def _look(self, found: JobAndPod, is_there: Callable[[JobAndPod], bool]) -> bool:
        if found.job["metadata"]["labels"].get(NAME_LABEL) != self._name:
            raise self._gone()
        if is_there(found):
            return True
        if is_dead(found):
            raise self._logged(death(found))
        state = progress(found)
        self._note_times(state)
        if state.failure is not None and (state.is_final or _has_passed(self._pull_deadline)):
            raise self._logged(state.failure)
        if state.waiting_for != self._reported and (not state.is_usual or _has_passed(self._report_at)):
            self._reported = state.waiting_for
            self._waiting_for(state.waiting_for)
        return False

    def _note_times(self, state: Progress) -> None:
        now = time.monotonic()
        if not state.is_usual:
            self._usual_since = None
        elif self._usual_since is None:
            self._usual_since = now
        if state.is_on_node and self._on_node_since is None:
            self._on_node_since = now

    @property
    def _report_at(self) -> float | None:
        return None if self._usual_since is None else self._usual_since + self._patience

    @property
    def _pull_deadline(self) -> float | None:
        return None if self._on_node_since is None else self._on_node_since + self._pull_timeout

    def _time_left(self) -> float | None:
        """Return the seconds until something is due although nothing has changed."""
        now = time.monotonic()
        due = [time - now for time in (self._report_at, self._pull_deadline) if time is not None and time > now]
        return min(due, default=None)

    def _logged(self, error: JobError) -> JobError:
        words = getattr(error, "words", error)
        logger.warning("the cluster did not start a container: %s", words, extra={"container": self._name})
        return error


def deleted_in_start() -> StartLost:
    return StartLost("its Job was deleted from the cluster before its process was known to run: it may have run")


def _has_passed(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
