"""A thread that calls functions at their deadlines, to end calls that block for too long.

A socket's own time-out restarts with every byte, so a server that sends a byte now and then never reaches it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

logger = logging.getLogger(__name__)


class Watchdog:
    """Calls functions at their deadlines. Thread-safe; its thread starts at the first use, also after a fork."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadlines: dict[object, tuple[float, Callable[[], object]]] = {}
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, seconds: float, expire: Callable[[], object]) -> Iterator[None]:
        """Call `expire` once, in another thread, if the block takes longer than `seconds`. It must not block."""
        key = object()
        deadline = time.monotonic() + seconds
        with self._condition:
            self._deadlines[key] = (deadline, expire)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif deadline < self._wakes_at:
                self._condition.notify()
        try:
            yield
        finally:
            with self._condition:
                self._deadlines.pop(key, None)

    def _run(self) -> None:
        while True:
            for expire in self._wait():
                try:
                    expire()
                except Exception:
                    logger.exception("enforcing a deadline failed")

    def _wait(self) -> list[Callable[[], object]]:
        """Sleep until the next deadline; return the functions whose deadline has passed."""
        with self._condition:
            self._wakes_at = min((deadline for deadline, _ in self._deadlines.values()), default=float("inf"))
            pause = self._wakes_at - time.monotonic()
            if pause > 0:
                self._condition.wait(min(pause, threading.TIMEOUT_MAX))
            self._wakes_at = float("-inf")  # awake: it checks all deadlines before it sleeps again
            now = time.monotonic()
            expired = [key for key, (deadline, _) in self._deadlines.items() if deadline <= now]
            return [self._deadlines.pop(key)[1] for key in expired]


watchdog: Final = Watchdog()
