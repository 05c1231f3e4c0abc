"""Which of a process's threads may wait for which destination.

A trusted destination, one that has answered well and quickly, may use any thread. All others share half of the threads, and
those that are known to be slow share half of that half. So events for trusted and for new hosts find a thread however many
hosts hang or are slow.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from callbacks.models import Destination
from callbacks.rules import destination_breaker

THREADS: Final = 64  # of a process

_attempts: dict[object, tuple[int, float]] = {}  # that this process has under way: destination, and when it began


class Places:
    """How many threads may wait for destinations that are not trusted, and which of the slow ones have some."""

    def __init__(self, untrusted: int, slow: int) -> None:
        self._lock = threading.Lock()
        self._untrusted, self._slow = untrusted, slow
        self._taken = 0
        self._taken_by_slow: Counter[int] = Counter()

    def take(self, destination_id: int, *, slow: bool) -> bool:
        with self._lock:
            if self._taken == self._untrusted or (slow and not self._has_room_for_slow(destination_id)):
                return False
            self._taken += 1
            if slow:
                self._taken_by_slow[destination_id] += 1
            return True

    def give_back(self, destination_id: int, *, slow: bool) -> None:
        with self._lock:
            self._taken -= 1
            if slow:
                self._taken_by_slow[destination_id] -= 1
                self._taken_by_slow += Counter()  # keeps those that have some

    def _has_room_for_slow(self, destination_id: int) -> bool:
        """Keep half of the places for slow destinations that have none: slightly slow hosts do not wait for very slow ones."""
        room = self._slow if destination_id not in self._taken_by_slow else self._slow - self._slow // 2
        return self._taken_by_slow.total() < room


places = Places(untrusted=THREADS // 2, slow=THREADS // 4)


class Permit:
    """The right of one thread to wait for a destination."""

    def __init__(self) -> None:
        self._place: tuple[int, bool] | None = None

    def allows(self, destination: Destination) -> bool:
        """Whether the thread may wait for this one; takes a place for it, where one is needed."""
        if is_trusted(destination):
            return True
        wanted = (destination.pk, _is_slow(destination))
        if self._place != wanted:
            self.release()
            if not places.take(wanted[0], slow=wanted[1]):
                return False
            self._place = wanted
        return True

    def release(self) -> None:
        if self._place is not None:
            places.give_back(self._place[0], slow=self._place[1])
            self._place = None


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
    return destination_breaker.is_proven(destination) and not _is_slow(destination)


def _is_slow(destination: Destination) -> bool:
    """Return whether its answers were slow, or an attempt under way has already taken that long."""
    if destination_breaker.is_slow(destination):
        return True
    slow_since = time.monotonic() - destination_breaker.SLOW_SECONDS
    return any(to == destination.pk and began < slow_since for to, began in list(_attempts.values()))
