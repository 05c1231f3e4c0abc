"""Shows that this worker process lives: its row in `Worker`, the counter in it, and a lock file."""

import os
from contextlib import suppress
from pathlib import Path

from django.db import DatabaseError
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from jobs.maintenance import dead_workers, worker_locks
from jobs.maintenance.worker_locks import WorkerLock
from jobs.models import Node, Worker, new_uuid
from orchestrator_site.base.config.configuration import host_name
from orchestrator_site.base.db.transactions import one_connection, short_read, short_transaction


class Heartbeat:
    """One process's row in `Worker`, and the lock file that is released when the process dies."""

    def __init__(self, node_id: int, state_dir: Path) -> None:
        """Register a worker.

        Raise Django's database errors, and `OSError` if STATE_DIR is not writable; nothing is held then.
        """
        self._node_id = node_id
        self._directory = state_dir / "locks"
        self._directory.mkdir(parents=True, exist_ok=True)
        locks = list(self._directory.glob("*.lock"))  # before the rows are read: a lock without a row may get one meanwhile
        with short_read():
            known = set(Worker.objects.values_list("lock_path", flat=True))
        worker_locks.remove_abandoned(locks, keep=known)
        self._register()
        with suppress(DatabaseError), one_connection():  # the first beat repeats it
            self._mark_node_seen()

    def _register(self) -> None:
        worker_id = new_uuid()
        lock = WorkerLock(self._directory / f"{worker_id}.lock")
        try:
            with short_transaction():
                Worker.objects.create(
                    id=worker_id,
                    node_id=self._node_id,
                    host=host_name(),
                    pid=os.getpid(),
                    lock_path=str(lock.path),
                    started_at=timezone.now(),
                )
        except BaseException:
            lock.release()
            raise
        self.worker_id, self._lock = worker_id, lock

    def beat(self, *, engine_answers: bool, accepts_downloads: bool = True, accepts_uploads: bool = True) -> bool:
        """Move the counter, and the node's heartbeat if its engine answers.

        A worker whose engine does not answer is alive and keeps its jobs. `accepts_downloads` and `accepts_uploads` say
        which jobs it can start, for clients that ask what a job waits for.

        Return False if this worker was declared dead; it then has a new id and no jobs.
        """
        with one_connection():  # each statement is a transaction of its own: with BEGIN and COMMIT it would be three messages
            alive = Worker.objects.filter(pk=self.worker_id).update(
                counter=F("counter") + 1, takes_downloads=accepts_downloads, takes_uploads=accepts_uploads
            )
            if not alive:
                self._lock.release()
                self._register()
            if engine_answers:
                self._mark_node_seen()
        return bool(alive)

    def _mark_node_seen(self) -> None:
        # Not in a transaction with the counter: a process that froze with the node's row locked must not stop others' counters.
        Node.objects.filter(pk=self._node_id).update(seen_at=Now())

    def stop(self) -> None:
        """Release all jobs and delete the row, so that another worker can adopt them at once."""
        dead_workers.sign_off(self.worker_id)
        self._lock.release()
