"""Ends what blocks for too long: one thread that calls back at a deadline, however busy the peer keeps us.

A socket's own time-out starts anew with every byte, so a peer that drips bytes never meets it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class Watchdog:
    """Thread-safe. Its thread starts with the first use, also in a process that was forked after one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadlines: dict[object, tuple[float, Callable[[], object]]] = {}
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, seconds: float, expire: Callable[[], object]) -> Iterator[None]:
        """While inside, `expire` is called once, in another thread, when so many seconds have passed. It must not block."""
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
                    logger.exception("a deadline could not be enforced")

    def _wait(self) -> list[Callable[[], object]]:
        """What is over, once something is or may be."""
        with self._condition:
            self._wakes_at = min((deadline for deadline, _ in self._deadlines.values()), default=float("inf"))
            pause = self._wakes_at - time.monotonic()
            if pause > 0:
                self._condition.wait(min(pause, threading.TIMEOUT_MAX))
            self._wakes_at = float("-inf")  # awake: looks at everything again before it sleeps
            now = time.monotonic()
            over = [key for key, (deadline, _) in self._deadlines.items() if deadline <= now]
            return [self._deadlines.pop(key)[1] for key in over]
