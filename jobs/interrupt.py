"""Interrupts a thread that is blocked in a call to an engine or a peer.

Before a run blocks, it registers a function that unblocks it, usually a `socket.shutdown`. A cancel, a time-out or a hand-over
calls `wake`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from jobs.errors import Interrupted
from orchestrator_site.base.intervals import RunIntervals


class Interrupt:
    """A flag, and the functions that unblock the calls of one run when it is set."""

    def __init__(self, intervals: RunIntervals = RunIntervals()) -> None:
        self._lock_check = intervals.lock_check
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], object]] = []

    def wake(self) -> None:
        """Set the flag and end all blocking calls. May be called from any thread, any number of times."""
        with self._lock:
            self._event.set()
            wakers = list(self._wakers)
        for waker in wakers:
            with suppress(OSError):  # the socket was closed, so it does not block any more
                waker()

    def clear(self) -> None:
        """Clear the flag. Call this before reading what the run has to do, so that no later `wake` is missed."""
        self._event.clear()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Interrupted` if the flag is set."""
        if self._event.is_set():
            raise Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        """Sleep; raise `Interrupted` as soon as the flag is set."""
        if self._event.wait(seconds):
            raise Interrupted("interrupted")

    @contextmanager
    def holding(self, lock: threading.Lock) -> Iterator[None]:
        """Hold `lock` inside the block. Raise `Interrupted` if the flag is set while another thread holds it."""
        while not lock.acquire(timeout=self._lock_check):
            self.check()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def waking(self, waker: Callable[[], object]) -> Iterator[None]:
        """Have `wake` call `waker` while inside the block.

        If the flag is already set, `waker` is called at once, so no interrupt is missed.
        """
        with self._lock:
            self._wakers.append(waker)
            already = self._event.is_set()
        try:
            if already:
                with suppress(OSError):
                    waker()
            yield
        finally:
            with self._lock:
                self._wakers.remove(waker)
