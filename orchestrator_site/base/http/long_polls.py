"""Answers that wait for something to happen, without holding a database connection or every thread."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator_site.base.config.configuration import WEB_THREADS
from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping

T = TypeVar("T")

# At most half of the threads of this process wait at once; the others answer at once.
slots = threading.BoundedSemaphore(max(1, WEB_THREADS // 2))


class _Waited(threading.local):
    seconds = 0.0


waited = _Waited()  # of the request of this thread, which sets it to zero at its start: it does not count as slowness


def look_until(look: Callable[[], T], enough: Callable[[T], bool], seconds: float, intervals: WebIntervals = WebIntervals()) -> T:
    """Return what `look` sees, as soon as that is `enough`, the time is up or the process stops; at once if no slot is free."""
    seen = look()
    if seconds <= 0 or enough(seen) or not slots.acquire(blocking=False):
        return seen
    began = time.monotonic()
    try:
        deadline, pause = began + seconds, intervals.poll
        while not enough(seen) and (left := deadline - time.monotonic()) > 0:
            release_connection()
            if stopping.wait(min(pause, left)):
                return seen
            pause = min(pause * 1.5, intervals.poll_max)
            seen = look()
        return seen
    finally:
        slots.release()
        waited.seconds += time.monotonic() - began
