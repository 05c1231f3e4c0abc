"""Limits how many threads of a process wait for destinations that may not answer soon.

A fast destination may use any thread. All others, be they new, failing or slow, are restricted to half of the threads, and
slow ones to half of that half. So however many hosts hang or are slow, events for fast and for new hosts find a thread.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from callbacks.models import Destination
from callbacks.rules import destination_breaker
from orchestrator_site.base.intervals import DeliveryIntervals

THREADS: Final = 64  # of a process


class ThreadLimiter:
    """The threads of one process that restricted destinations may use."""

    def __init__(
        self, intervals: DeliveryIntervals = DeliveryIntervals(), *, restricted: int = THREADS // 2, slow: int = THREADS // 4
    ) -> None:
        """Allow `restricted` threads for all destinations that are not fast, and `slow` of these for slow ones."""
        self._intervals, self._restricted, self._slow = intervals, restricted, slow
        self._lock = threading.Lock()
        self._held: dict[UUID, tuple[int, bool]] = {}  # destination of each holder, and whether it is slow
        self._attempts: dict[UUID, tuple[int, float]] = {}  # in flight: destination of each holder, and when it began

    def acquire(self, holder: UUID, destination: Destination) -> bool:
        """Return True if the thread of `holder` may wait for this destination, after any other that it has waited for."""
        if self.is_fast(destination):
            return True
        wanted = (destination.pk, self._is_slow(destination))
        with self._lock:
            if self._held.get(holder) != wanted:
                self._held.pop(holder, None)
                if not self._is_free(*wanted):
                    return False
                self._held[holder] = wanted
        return True

    def release(self, holder: UUID) -> None:
        """Leave the thread to others, if it was restricted."""
        with self._lock:
            self._held.pop(holder, None)

    def is_fast(self, destination: Destination) -> bool:
        """Return True if its last answers were good and quick, and no attempt of this process has been slow since."""
        return destination_breaker.is_fast(destination) and not self._is_slow(destination)

    @contextmanager
    def attempt(self, holder: UUID, destination: Destination) -> Iterator[None]:
        """Mark an attempt as in flight: one that takes long makes its destination slow before it is answered."""
        self._attempts[holder] = (destination.pk, time.monotonic())
        try:
            yield
        finally:
            del self._attempts[holder]

    def _is_free(self, destination_id: int, slow: bool) -> bool:
        if len(self._held) >= self._restricted:
            return False
        holding = [held for held, is_slow in self._held.values() if is_slow]
        # Half is kept for slow destinations that hold none, so that slightly slow hosts do not wait for very slow ones.
        allowed = self._slow - self._slow // 2 if destination_id in holding else self._slow
        return not slow or len(holding) < allowed

    def _is_slow(self, destination: Destination) -> bool:
        if destination_breaker.is_slow(destination):
            return True
        slow_since = time.monotonic() - self._intervals.slow
        return any(to == destination.pk and began < slow_since for to, began in list(self._attempts.values()))
