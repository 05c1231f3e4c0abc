"""Decides which worker processes are dead, and frees their jobs for other workers.

A worker is dead if its heartbeat counter has not moved for 15 s by an observer's monotonic clock while the database
answered. On the worker's own machine an unlocked lock file shows it at once. The worker's row is deleted in the transaction
that releases its jobs, and later writes of the worker are refused (docs/adr/0005-a-dead-worker-has-no-row.md).
"""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.db import IntegrityError
from django.db.models import F

from jobs import node_hints
from jobs.maintenance import worker_locks
from jobs.models import Job, Node, Worker
from orchestrator_site.base.db.statements import select_rows
from orchestrator_site.base.db.transactions import short_read, short_transaction
from orchestrator_site.base.intervals import WorkerIntervals

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Counter:
    value: int
    unchanged_since: float


class DeadWorkerDetector:
    """An observer of the heartbeat counters of all workers, which removes dead workers."""

    def __init__(self, intervals: WorkerIntervals = WorkerIntervals(), clock: Callable[[], float] = time.monotonic) -> None:
        self._intervals = intervals
        self._clock = clock
        self._counters: dict[UUID, _Counter] = {}
        self._lock_paths: list[str] = []  # of the workers that it has seen
        self._read_at = float("-inf")

    def check(self) -> int:
        """Remove dead workers and return their number. To be called about once a second.

        Raise Django's `OperationalError` if the database does not answer. A counter counts as unchanged only while they are
        read again and again: after a gap (the database was away, or this process was frozen) observation starts over.
        """
        if not self._has_reason_to_read():
            return 0
        with short_read():
            workers = select_rows(Worker, "", ())
        now = self._clock()
        starts_over = now - self._read_at > self._intervals.observer_restarts_after
        self._read_at = now
        self._lock_paths = [worker.lock_path for worker in workers]
        before, self._counters = self._counters, {}
        dead = 0
        for worker in workers:
            counter = before.get(worker.pk)
            if counter is None or counter.value != worker.counter or starts_over:
                counter = _Counter(worker.counter, now)
            self._counters[worker.pk] = counter
            if worker_locks.is_abandoned(worker.lock_path) or now - counter.unchanged_since >= self._intervals.dead_after:
                dead += declare_dead(worker.pk, worker.counter)
        return dead

    def _has_reason_to_read(self) -> bool:
        """Whether it is time, or one of the workers that it has seen may be dead."""
        now = self._clock()
        return (
            now - self._read_at >= self._intervals.observe
            or any(now - counter.unchanged_since >= self._intervals.dead_after for counter in self._counters.values())
            or any(map(worker_locks.is_abandoned, self._lock_paths))
        )


def declare_dead(worker_id: UUID, counter: int) -> bool:
    """Remove a worker whose counter stands at `counter`, and count its death against each of its jobs.

    Return False if its counter has moved, or if it is claiming a job at this moment.
    """
    return _remove(worker_id, counter)


def sign_off(worker_id: UUID) -> None:
    """Remove a worker that stops in an orderly way. Its jobs are free at once, and no death is counted."""
    _remove(worker_id, None)


def _remove(worker_id: UUID, counter: int | None) -> bool:
    rows = Worker.objects.filter(pk=worker_id)
    is_dead = counter is not None
    if counter is not None:
        rows = rows.filter(counter=counter)
    try:
        with short_transaction():
            worker = rows.select_for_update(skip_locked=is_dead).values_list("node_id", "lock_path").first()
            if worker is None:
                return False
            node_id, lock_path = worker
            node = Node.objects.values_list("name", flat=True).get(pk=node_id) if is_dead else ""
            jobs = Job.objects.filter(owner=worker_id).update(owner=None, owner_deaths=F("owner_deaths") + int(is_dead))
            Worker.objects.filter(pk=worker_id).delete()
            if jobs:
                node_hints.hint_node_on_commit(node_id)
    except IntegrityError:  # it is claiming a job at this moment: the next check removes it
        return False
    with suppress(OSError):
        Path(lock_path).unlink(missing_ok=True)
    if is_dead:
        logger.warning("a worker is dead; its jobs are released", extra={"worker": worker_id, "node": node, "jobs": jobs})
    return True


def uncount_death(jobs: Collection[UUID]) -> None:
    """Take back one counted death from these jobs: their owner was cut off from the database, not killed."""
    Job.objects.filter(uuid__in=jobs, owner_deaths__gt=0).update(owner_deaths=F("owner_deaths") - 1)
