"""Follows what running containers use, by the engine's statistics."""

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Final

from jobs.engine.docker.transport import EngineClient
from jobs.engine.docker.usage.statistics_reader import FollowedStatistics, StatisticsReader
from jobs.engine.protocol import FollowedUsage

logger = logging.getLogger(__name__)

_WAKE_UP: Final = b"\0"


class StatisticsStreams:
    """The containers of one engine that are followed. One thread reads for all, and ends with the last of them. Thread-safe."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._followed: set[FollowedStatistics] = set()
        self._waker: socket.socket | None = None  # while there is a thread

    def follow(self, name: str) -> FollowedUsage:
        """See `Engine.follow_usage`."""
        followed = FollowedStatistics(name, time.monotonic() + self._client.intervals.statistics_delay, self._leave)
        with self._lock:
            try:
                self._wake()
            except (OSError, RuntimeError) as error:  # no file descriptor or no thread is left
                logger.warning("the usage of a job is not followed: %s", error, extra={"container": name})
            else:
                self._followed.add(followed)
        return followed

    def _leave(self, followed: FollowedStatistics) -> None:
        with self._lock:
            if followed in self._followed:
                self._followed.remove(followed)
                self._wake()

    def _wake(self) -> None:
        """Let the thread look at what is followed, and start it if there is none. Raise `OSError` or `RuntimeError`."""
        if self._waker is None:
            waker, woken = socket.socketpair()
            try:
                threading.Thread(target=self._run, args=(woken,), name="engine statistics", daemon=True).start()
            except RuntimeError:
                waker.close()
                woken.close()
                raise
            waker.setblocking(False)
            self._waker = waker
        with suppress(OSError):  # it was woken often enough, or ends after an error
            self._waker.send(_WAKE_UP)

    def _run(self, woken: socket.socket) -> None:
        try:
            with woken, StatisticsReader(self._client, woken) as reader:
                while followed := self._still_followed():
                    reader.turn(followed)
        except Exception:
            logger.exception("the usage of the jobs that run now is not followed any more")
            with self._lock:
                self._end()

    def _still_followed(self) -> set[FollowedStatistics]:
        """Return what is followed. If it is nothing, the thread has to end: the next container gets a new one."""
        with self._lock:
            if not self._followed:
                self._end()
            return set(self._followed)

    def _end(self) -> None:
        self._followed.clear()
        if self._waker is not None:
            self._waker.close()
        self._waker = None
