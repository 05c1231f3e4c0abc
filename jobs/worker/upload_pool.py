"""Uploads the outputs of ended jobs in threads of its own, so that slow receivers do not keep other jobs from starting."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from jobs.running.runner import Run
from orchestrator_site.base.db.transactions import release_connection

logger = logging.getLogger(__name__)


class UploadPool:
    """A number of threads, and a queue of runs that wait for one."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="uploads")
        self._futures: dict[Run, Future[None]] = {}
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The number of runs in it, waiting ones included."""
        with self._lock:
            return len(self._futures)

    def submit(self, run: Run, done: Callable[[Run], object]) -> bool:
        """Drive the run to its end and then call `done`, also if it is cancelled. Return False if the pool has stopped."""
        with self._lock:
            if self._stopped:
                return False
            future = self._futures[run] = self._executor.submit(_drive, run)

        def forget(_: Future[None]) -> None:
            with self._lock:
                del self._futures[run]
            done(run)

        future.add_done_callback(forget)
        return True

    def cancel(self, run: Run) -> bool:
        """Drop a run that still waits for a thread. Return False if a thread drives it, or if it is not here."""
        with self._lock:
            future = self._futures.get(run)
        return future is not None and future.cancel()

    def stop(self) -> None:
        """Drop all runs that wait. Those that threads drive go on until they are handed over."""
        with self._lock:
            self._stopped = True
        self._executor.shutdown(wait=False, cancel_futures=True)


def _drive(run: Run) -> None:
    try:
        run.drive(uploading=True)
    except Exception:
        logger.exception("an upload thread has failed", extra=run.log_context)
    finally:
        release_connection()
