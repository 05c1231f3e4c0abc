"""Keeps an answer for a while, so that many open pages cost as much as one."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """The last answer of a function, which is asked for again when it is older than `period`. Any thread may call it."""

    def __init__(self, ask: Callable[[], Answer], period: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[float, Answer] | None = None

    def __call__(self) -> Answer:
        kept = self._kept
        if kept is None:
            self._lock.acquire()
        elif self._clock() - kept[0] < self._period or not self._lock.acquire(blocking=False):
            return kept[1]  # while another thread asks, its last answer is good enough
        try:
            latest = self._kept
            if latest is None or latest is kept:  # else another thread has asked meanwhile
                latest = self._kept = (self._clock(), self._ask())
            return latest[1]
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Ask again at the next call."""
        with self._lock:
            self._kept = None
