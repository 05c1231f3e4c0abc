"""Uploads the outputs of ended jobs, in threads of its own: however slow their receivers are, other jobs start."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from jobs.running.runner import Run
from orchestrator_site.base.db.transactions import release_connection

logger = logging.getLogger(__name__)


class Senders:
    """A number of threads, and the runs that wait for one in the order in which they came."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="outputs")
        self._futures: dict[Run, Future[None]] = {}
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def jobs(self) -> int:
        """How many runs they have, waiting ones included."""
        with self._lock:
            return len(self._futures)

    def take(self, run: Run, done: Callable[[Run], object]) -> bool:
        """Drive this run to its end and then call `done`, also where it is withdrawn. False where they have stopped."""
        with self._lock:
            if self._stopped:
                return False
            future = self._futures[run] = self._pool.submit(_send, run)

        def forget(_: Future[None]) -> None:
            with self._lock:
                del self._futures[run]
            done(run)

        future.add_done_callback(forget)
        return True

    def withdraw(self, run: Run) -> bool:
        """Give up a run that still waits for a thread; False where one drives it."""
        with self._lock:
            future = self._futures.get(run)
        return future is not None and future.cancel()

    def stop(self) -> None:
        """Begin no more. Runs that threads drive are let go by who stops this."""
        with self._lock:
            self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)


def _send(run: Run) -> None:
    try:
        run.drive(sending=True)
    except Exception:
        logger.exception("a thread that sends outputs has failed", extra={"job": run.claim.uuid})
    finally:
        release_connection()
