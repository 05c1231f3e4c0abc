"""Which of a process's threads may wait for which destination.

Any thread may wait for a destination that is trusted: it has answered well, and quickly. All others share half of the
threads, and those that are known to be slow a half of that: however many hosts hang or drag, events for trusted hosts and
for new ones find a thread.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from callbacks import breaker
from callbacks.models import Destination

THREADS: Final = 64  # of a process
_UNTRUSTED_THREADS: Final = THREADS // 2
_SLOW_THREADS: Final = _UNTRUSTED_THREADS // 2

_attempts: dict[object, tuple[int, float]] = {}  # that this process has under way: destination, and when it began


class Permit:
    """The right to wait for any destination with one thread."""

    _untrusted = threading.BoundedSemaphore(_UNTRUSTED_THREADS)
    _slow = threading.BoundedSemaphore(_SLOW_THREADS)

    def __init__(self) -> None:
        self._held: list[threading.BoundedSemaphore] = []

    def allows(self, destination: Destination) -> bool:
        """Whether the thread may wait for this one; takes a place among those that may, where one is needed."""
        if is_trusted(destination):
            return True
        needed = [self._slow, self._untrusted] if _is_slow(destination) else [self._untrusted]
        for places in needed:
            if places not in self._held:
                if not places.acquire(blocking=False):
                    return False
                self._held.append(places)
        return True

    def release(self) -> None:
        while self._held:
            self._held.pop().release()


@contextmanager
def waiting_for(destination: Destination) -> Iterator[None]:
    """While an attempt is under way."""
    key = object()
    _attempts[key] = (destination.pk, time.monotonic())
    try:
        yield
    finally:
        del _attempts[key]


def is_trusted(destination: Destination) -> bool:
    return breaker.is_proven(destination) and not _is_slow(destination)


def _is_slow(destination: Destination) -> bool:
    """By what it has answered, or by an attempt under way: one that takes so long already will not be quick any more."""
    if breaker.is_slow(destination):
        return True
    slow_since = time.monotonic() - breaker.SLOW_SECONDS
    return any(to == destination.pk and began < slow_since for to, began in list(_attempts.values()))
