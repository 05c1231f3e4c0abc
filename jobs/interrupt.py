"""How one thread gets another out of a blocking call.

A run blocks on an engine or on a peer for as long as these please. Before it does, it registers what
would unblock it; whoever wants it to look up (a cancel, a time-out, a hand-over) calls `wake`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from jobs.errors import Interrupted

_LOOK_SECONDS = 0.1  # nothing wakes a thread that waits for a lock


class Interrupt:
    """A flag that stays set until `clear`, and the call-backs that end the blocking calls of one run."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], object]] = []

    def wake(self) -> None:
        """Set the flag and end what blocks. May be called from any thread, any number of times."""
        with self._lock:
            self._event.set()
            wakers = list(self._wakers)
        for waker in wakers:
            with suppress(OSError):  # closed meanwhile: it does not block any more
                waker()

    def clear(self) -> None:
        """Take the flag back, before the run looks at what it now has to do."""
        self._event.clear()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Interrupted` where the flag is set."""
        if self._event.is_set():
            raise Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        """Wait so long; raise `Interrupted` as soon as the flag is set."""
        if self._event.wait(seconds):
            raise Interrupted("interrupted")

    @contextmanager
    def holding(self, lock: threading.Lock) -> Iterator[None]:
        """Hold `lock` inside. Raise `Interrupted` soon after the flag is set while another thread holds it."""
        while not lock.acquire(timeout=_LOOK_SECONDS):
            self.check()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def waking(self, waker: Callable[[], object]) -> Iterator[None]:
        """While inside, `wake` calls `waker` (typically a `socket.shutdown`).

        `waker` is called at once where the flag is already set, so that nothing can fall between.
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
