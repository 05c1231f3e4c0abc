"""Answers that wait for something to happen, without holding a database connection or every thread."""

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.conf import settings

from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.stopping import stopping

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.02  # seconds
_LONGEST_PAUSE: Final = 0.1

# At most half of the threads of this process wait at once; the others answer at once.
seats = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))


def look_until(look: Callable[[], T], enough: Callable[[T], bool], seconds: float) -> T:
    """Return what `look` sees, as soon as that is `enough`, the time is up or the process stops; at once if no seat is free."""
    seen = look()
    if seconds <= 0 or enough(seen) or not seats.acquire(blocking=False):
        return seen
    try:
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while not enough(seen) and (left := deadline - time.monotonic()) > 0:
            release_connection()
            if stopping.wait(min(pause, left)):
                return seen
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            seen = look()
        return seen
    finally:
        seats.release()
