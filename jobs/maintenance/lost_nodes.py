"""Decides which nodes are lost, and ends or requeues their jobs."""

import logging
import time
from collections.abc import Callable, Collection

from django.db.models import Exists, OuterRef, QuerySet

from jobs import lifecycle
from jobs.errors import OwnershipLost
from jobs.models import Job, Node, Worker
from jobs.running import claiming
from orchestrator_site.base.db.transactions import short_read
from orchestrator_site.base.intervals import WorkerIntervals

logger = logging.getLogger(__name__)

_BATCH = 200


class LostNodeDetector:
    """An observer of nodes that have had no living worker for too long, by its own monotonic clock."""

    def __init__(
        self,
        lost_after: float,
        intervals: WorkerIntervals = WorkerIntervals(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lost_after = lost_after
        self._intervals = intervals
        self._clock = clock
        self._deserted_since: dict[int, float] = {}
        self._checked_at = float("-inf")

    def check(self) -> list[int]:
        """Return the ids of nodes with unfinished jobs and no worker for `lost_after` seconds.

        After a gap between two checks the time starts over: the database or this process was away.
        """
        with short_read():
            deserted = set(unattended().values_list("node_id", flat=True).distinct())
        now = self._clock()
        if now - self._checked_at > self._intervals.observer_restarts_after:
            self._deserted_since.clear()
        self._checked_at = now
        self._deserted_since = {node: self._deserted_since.get(node, now) for node in deserted}
        return [node for node, since in self._deserted_since.items() if now - since >= self._lost_after]

    def reset(self) -> None:
        """Forget what it saw: no node is without a worker."""
        self._deserted_since.clear()


def unattended() -> "QuerySet[Job]":
    """Return the unfinished jobs on nodes that have no worker."""
    workers = Worker.objects.filter(node=OuterRef("node"))  # `node__workers=None` would join the nodes, too
    return Job.objects.filter(~Exists(workers), completed_at=None, node__isnull=False)


def end_jobs(node_ids: Collection[int]) -> int:
    """End the jobs of lost nodes, or requeue those that had not started. Return how many; at most 200 per node."""
    ended = 0
    for node in Node.objects.filter(pk__in=node_ids):
        with short_read():
            jobs = list(claiming.orphans(node.pk).values_list("uuid", flat=True)[:_BATCH])
        for uuid in jobs:
            try:
                lifecycle.node_lost(uuid, node)
            except OwnershipLost:
                continue
            ended += 1
        if jobs:
            logger.error("a node is lost; its jobs end", extra={"node": node.name, "jobs": len(jobs)})
    return ended
