"""Compares the runs of a worker with the rows that it owns, once per tick."""

import logging
import time
from uuid import UUID

from jobs.models import Job
from jobs.running.runner import Run
from jobs.running.suspects import Suspects
from jobs.states import State
from jobs.worker.upload_pool import UploadPool
from orchestrator_site.base.db.transactions import short_read

logger = logging.getLogger(__name__)


class JobWatch:
    """The part of a worker that wakes runs whose row has changed, and releases rows that no thread drives."""

    def __init__(self, node: str, upload_pool: UploadPool, suspects: Suspects, proven_harmless: float) -> None:
        """Watch the jobs of a worker on the node with the name `node`.

        A job that runs, has ended, or waits in a cluster under this worker for `proven_harmless` seconds did not kill its earlier
        owners.
        """
        self._node = node
        self._upload_pool = upload_pool
        self._suspects = suspects
        self._proven_harmless = proven_harmless
        self.owned: set[UUID] = set()  # as of the last check
        self.undriven: set[UUID] = set()  # those of them that no thread drove; the next check may release them

    def check(self, worker_id: UUID, runs: list[Run]) -> None:
        """Read the rows that `worker_id` owns, and act on those that differ from `runs`.

        A run that waits for an upload thread is released instead of woken: its next owner does at once what the row asks for.
        """
        mine = Job.objects.filter(owner=worker_id, completed_at=None)
        with short_read():
            rows = list(mine.values_list("uuid", "status", "claims", "outputs_cancelled_at", "owner_deaths"))
        states = {uuid: (status, claims, cancelled is not None) for uuid, status, claims, cancelled, _ in rows}
        self.owned = set(states)
        self._clear_suspicion(worker_id, runs, {uuid for uuid, *_, deaths in rows if deaths})
        for run in runs:
            if states.pop(run.claim.uuid, None) == (run.status, run.claim.number, run.outputs_cancelled):
                continue
            if self._upload_pool.cancel(run):
                mine.filter(run.claim.guard, uuid=run.claim.uuid).update(owner=None)
            run.interrupt.wake()
        self._release_undriven(worker_id, set(states))

    def _release_undriven(self, worker_id: UUID, undriven: set[UUID]) -> None:
        """Release the rows that no thread drove at the last check either: others may just have been claimed by a thread."""
        stray = undriven & self.undriven
        self.undriven = undriven
        if stray:
            logger.error("released jobs that no thread drives", extra={"node": self._node, "jobs": len(stray)})
            Job.objects.filter(owner=worker_id, completed_at=None, uuid__in=stray).update(owner=None)

    def _clear_suspicion(self, worker_id: UUID, runs: list[Run], suspected: set[UUID]) -> None:
        """Forget the deaths of earlier owners for jobs that this worker has survived."""
        now = time.monotonic()
        driven = [run for run in runs if run.status != State.ACCEPTED or run.is_waiting]
        harmless = [run.claim for run in driven if now - run.began >= self._proven_harmless]
        if cleared := suspected & {claim.uuid for claim in harmless}:
            Job.objects.filter(owner=worker_id, uuid__in=cleared).update(owner_deaths=0)
        for claim in harmless:
            self._suspects.clear(claim)
