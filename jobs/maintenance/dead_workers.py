"""Who lives: workers and their heartbeats.

A worker is dead when its counter stood still for 15 s on one observer's clock, the database answering all the
while; on the same machine a lock file that can be taken is death at once. The row of a dead worker is deleted,
which takes its jobs from it in the same transaction: whatever it still writes is refused, and a worker of the
same node claims them.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.db import DatabaseError, IntegrityError
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from jobs import node_hints
from jobs.models import Job, Node, Worker, new_uuid
from orchestrator_site.base.config.configuration import host_name
from orchestrator_site.base.db.transactions import short_read, short_transaction

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 15.0
# An observer that could not look for so long (the database was away, or it was itself frozen) starts anew.
_BLIND_SECONDS = 5.0


class Heart:
    """One process's row in `Worker`, and the lock file that dies with the process."""

    def __init__(self, node_id: int, state_dir: Path) -> None:
        """Raises Django's database errors, and `OSError` where STATE_DIR takes no file; nothing is held then."""
        self._node_id = node_id
        self._directory = state_dir / "locks"
        self._lock: int | None = None
        self._directory.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self._directory)
        self.worker_id = self._be_born()
        with suppress(DatabaseError):  # else a beat does it
            self._show_node()

    def _be_born(self) -> UUID:
        worker_id = new_uuid()
        self._lock_path = self._directory / f"{worker_id}.lock"
        self._make_lock()
        try:
            with short_transaction():
                Worker.objects.create(
                    id=worker_id,
                    node_id=self._node_id,
                    host=host_name(),
                    pid=os.getpid(),
                    lock_path=str(self._lock_path),
                    started_at=timezone.now(),
                )
        except BaseException:
            self._drop_lock()
            raise
        return worker_id

    def _make_lock(self) -> None:
        """Again where somebody took it for abandoned, in the moment before it was locked."""
        while self._lock is None:
            lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            if _locks(lock) and self._lock_path.exists():
                self._lock = lock
            else:
                os.close(lock)

    def beat(self, *, engine_answers: bool, takes_downloads: bool = True, takes_uploads: bool = True) -> bool:
        """Move the counter, and the node's heartbeat where its engine answers; say which jobs it can start.

        A worker whose engine does not is alive and keeps its jobs. False: this one was declared dead and has a new identity now.
        """
        with short_transaction():
            alive = Worker.objects.filter(pk=self.worker_id).update(
                counter=F("counter") + 1, takes_downloads=takes_downloads, takes_uploads=takes_uploads
            )
        if not alive:
            self._drop_lock()
            self.worker_id = self._be_born()
        if engine_answers:
            self._show_node()
        return bool(alive)

    def _show_node(self) -> None:
        """By itself: a process that was frozen while it held the node's row must not stop the hearts of the others."""
        with short_transaction():
            Node.objects.filter(pk=self._node_id).update(seen_at=Now())

    def stop(self) -> None:
        """Let go of all jobs and of the row, so that another worker goes on at once."""
        bury(self.worker_id)
        self._drop_lock()

    def _drop_lock(self) -> None:
        """Nothing where it is dropped already."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                self._lock_path.unlink()
            os.close(lock)


@dataclass(slots=True)
class _Seen:
    counter: int
    since: float


class Observer:
    """Watches the counters of all workers on its own monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[UUID, _Seen] = {}
        self._looked_at = float("-inf")

    def look(self) -> int:
        """Bury who is dead; how many. Raises Django's `OperationalError` where the database does not answer."""
        with short_read():
            rows = list(Worker.objects.values_list("pk", "counter", "lock_path"))
        now = self._clock()
        blind = now - self._looked_at > _BLIND_SECONDS
        self._looked_at = now
        before, self._seen = self._seen, {}
        buried = 0
        for worker, counter, lock_path in rows:
            seen = before.get(worker)
            if seen is None or seen.counter != counter or blind:
                seen = _Seen(counter, now)
            self._seen[worker] = seen
            if _lock_is_free(lock_path) or now - seen.since >= DEAD_AFTER_SECONDS:
                buried += bury(worker, counter)
        return buried


def bury(worker: UUID, counter: int | None = None) -> bool:
    """Delete the worker's row and take its jobs from it; False where its counter moved meanwhile.

    With the `counter` at which it stood still it is a death, which counts against each of its jobs (see `jobs.running.suspects`).
    """
    row = Worker.objects.filter(pk=worker)
    if counter is not None:
        row = row.filter(counter=counter)
    try:
        with short_transaction():
            node = row.select_for_update(skip_locked=counter is not None).values_list("node_id", "lock_path").first()
            if node is None:
                return False
            died = counter is not None
            orphaned = Job.objects.filter(owner=worker).update(owner=None, owner_deaths=F("owner_deaths") + int(died))
            Worker.objects.filter(pk=worker).delete()
            if orphaned:
                node_hints.node_on_commit(node[0])
    except IntegrityError:  # it claims at this very moment: the next look finds it
        return False
    with suppress(OSError):
        Path(node[1]).unlink(missing_ok=True)
    if counter is not None:
        logger.warning("a worker is dead: its jobs go to others", extra={"worker": worker, "node": node[0], "jobs": orphaned})
    return True


def forgive(uuids: Collection[UUID]) -> None:
    """Take back one death of these jobs' owner: it lived, and was cut off from the database."""
    Job.objects.filter(uuid__in=uuids, owner_deaths__gt=0).update(owner_deaths=F("owner_deaths") - 1)


def _lock_is_free(lock_path: str) -> bool:
    """True where the file is on this machine and no process holds it."""
    with _taken(lock_path) as free:
        return free


@contextmanager
def _taken(lock_path: str) -> Iterator[bool]:
    """Hold the lock meanwhile; False where somebody else does, or the file is not there."""
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False  # another machine's, or its owner is just being born or buried
        return
    try:
        yield _locks(descriptor)
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(directory: Path) -> None:
    """Locks of processes that were killed before they had a row, or buried by somebody who was killed then."""
    paths = list(directory.glob("*.lock"))
    with short_read():
        known = set(Worker.objects.values_list("lock_path", flat=True))
    for path in paths:
        with _taken(str(path)) as free:
            if free and str(path) not in known:
                path.unlink(missing_ok=True)


class LostNodes:
    """Finds nodes that have had no living worker for too long, on its own monotonic clock."""

    def __init__(self, after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._after = after
        self._clock = clock
        self._since: dict[int, float] = {}
        self._looked_at = float("-inf")

    def look(self) -> list[int]:
        """Nodes with unfinished jobs that are lost, by now."""
        with short_read():
            held = Job.objects.filter(completed_at=None, node__isnull=False, node__workers=None)
            deserted = set(held.values_list("node_id", flat=True).distinct())
        now = self._clock()
        if now - self._looked_at > _BLIND_SECONDS:
            self._since.clear()
        self._looked_at = now
        self._since = {node: self._since.get(node, now) for node in deserted}
        return [node for node, since in self._since.items() if now - since >= self._after]
