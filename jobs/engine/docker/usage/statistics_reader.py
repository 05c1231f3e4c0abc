"""Reads streams of the engine's statistics, one for each container.

The engine adds a sample to each about once a second, and reads the container's control groups for it. That costs it CPU time, so
only a few are open at once; if more containers run, they take turns. See docs/adr/0020-usage-from-parent-control-groups.md.
"""

import json
import logging
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus
from math import inf
from operator import attrgetter
from typing import Final

from jobs.engine.answer_stream import ANSWER_TOO_SHORT, ANSWER_UNREADABLE, ByteStream
from jobs.engine.docker.transport import EngineAnswer, EngineClient, quoted
from jobs.engine.protocol import Usage
from jobs.errors import ContainerNotFound, EngineUnavailable, JobError
from jobs.interrupt import Interrupt

logger = logging.getLogger(__name__)

MAX_STREAMS: Final = 16
_MAX_SAMPLE_BYTES: Final = 1024**2  # a sample has a few KiB, and some bytes more for each CPU and disk
_MAX_WAKE_UPS: Final = 4096
_NANOSECONDS: Final = 10**9


class FollowedStatistics:
    """The usage of one running container, as of its latest sample; a `FollowedUsage`."""

    def __init__(self, name: str, due: float, leave: Callable[["FollowedStatistics"], None]) -> None:
        self.name = name
        self.due = due  # when a stream may be opened, by `time.monotonic`
        self._leave = leave
        self._latest: Usage | None = None

    def latest(self) -> Usage | None:
        return self._latest

    def close(self) -> None:
        self._leave(self)

    def add(self, sample: Usage) -> None:
        peaks = [usage.peak_memory_bytes or 0 for usage in (self._latest, sample) if usage]
        self._latest = Usage(sample.cpu_seconds, max(peaks) or None)


class StatisticsReader:
    """The open streams of one thread, for as long as its context lasts."""

    def __init__(self, client: EngineClient, woken: socket.socket) -> None:
        """A byte on the socket `woken` ends a turn."""
        self._intervals = client.intervals
        self._client = client.bound(Interrupt(), self._intervals.statistics_answer)
        self._streams: dict[FollowedStatistics, _Stream] = {}
        self._waiting: list[FollowedStatistics] = []  # without a stream, in the order in which they are due
        self._may_open_at = 0.0  # by `time.monotonic`
        self._selector = selectors.DefaultSelector()
        self._selector.register(woken, selectors.EVENT_READ)

    def __enter__(self) -> "StatisticsReader":
        return self

    def __exit__(self, *_: object) -> None:
        for followed in list(self._streams):
            self._close(followed)
        self._selector.close()

    def turn(self, followed: set[FollowedStatistics]) -> None:
        """Close the streams of all others, open one that is due, and wait: for samples, the next that is due, or a byte."""
        for other in self._streams.keys() - followed:
            self._close(other)
        self._queue(followed)
        if self._pause() == 0:
            self._open(self._waiting.pop(0))
            self._queue(followed)
        for key, _ in self._selector.select(self._pause()):
            if isinstance(key.data, FollowedStatistics):
                self._read(key.data)
            elif isinstance(key.fileobj, socket.socket):
                key.fileobj.recv(_MAX_WAKE_UPS)

    def _queue(self, followed: set[FollowedStatistics]) -> None:
        self._waiting = sorted(followed - self._streams.keys(), key=attrgetter("due"))

    def _pause(self) -> float | None:
        """Return the seconds until a stream may be opened, or None if there is none or no room for it."""
        if not self._waiting or self._is_full:
            return None
        return max(self._next_due() - time.monotonic(), 0)

    @property
    def _is_full(self) -> bool:
        return len(self._streams) >= MAX_STREAMS

    def _next_due(self) -> float:
        return max(self._waiting[0].due, self._may_open_at) if self._waiting else inf

    def _open(self, followed: FollowedStatistics) -> None:
        try:
            stream = _Stream(self._client, followed.name)
        except ContainerNotFound as error:
            self._put_off(followed, error)
            return
        except (JobError, OSError) as error:
            self._put_off(followed, error)
            # One request finds out for all whether the engine answers, and whether a proxy lets statistics through.
            self._may_open_at = followed.due
            return
        self._streams[followed] = stream
        self._may_open_at = time.monotonic() + self._intervals.statistics_pace
        self._read(followed)  # what came with the headers does not make the socket readable
        if followed in self._streams:
            self._selector.register(stream, selectors.EVENT_READ, followed)
            stream.registered = True

    def _read(self, followed: FollowedStatistics) -> None:
        """Take the samples that have arrived, and make room if other containers wait."""
        stream = self._streams[followed]
        failure: Exception | None = None
        try:
            stream.receive()
        except (JobError, OSError) as error:
            failure = error
        lines = stream.take_lines()
        for line in lines:
            if sample := sample_of(line):
                followed.add(sample)
        if failure is not None:
            self._close(followed)
            self._put_off(followed, failure)
        elif lines and self._is_full and self._next_due() <= time.monotonic() + self._intervals.statistics_pace:
            self._close(followed)
            followed.due = time.monotonic()

    def _put_off(self, followed: FollowedStatistics, reason: object) -> None:
        logger.debug("no statistics of a container: %s", reason, extra={"container": followed.name})
        followed.due = time.monotonic() + self._intervals.statistics_retry

    def _close(self, followed: FollowedStatistics) -> None:
        stream = self._streams.pop(followed)
        if stream.registered:
            self._selector.unregister(stream)
        stream.close()


class _Stream:
    """One open answer to `GET /containers/<name>/stats`: a line for each sample."""

    def __init__(self, client: EngineClient, name: str) -> None:
        """Raise `JobError` or `OSError`."""
        with ExitStack() as opened:
            path = f"/containers/{quoted(name)}/stats"
            response = opened.enter_context(client.stream("GET", path, params={"stream": "1"}))
            if isinstance(response, EngineAnswer):
                if response.status == HTTPStatus.NOT_FOUND:
                    raise ContainerNotFound(response.message)
                raise EngineUnavailable(response.message)
            self._body = ByteStream(response.raw, client.interrupt, client.intervals)
            self.close = opened.pop_all().close
        self._received = b""
        self.registered = False  # with the selector

    def fileno(self) -> int:
        return self._body.fileno()

    def receive(self) -> None:
        """Receive what has arrived, without waiting. Raise `EngineUnavailable`, also at the end of the stream."""
        while self._body.ready(0):
            if not (data := self._body.read()):
                raise EngineUnavailable(ANSWER_TOO_SHORT)
            self._received += data
            if len(self._received) > _MAX_SAMPLE_BYTES:
                raise EngineUnavailable(ANSWER_UNREADABLE)

    def take_lines(self) -> list[bytes]:
        """Return the lines that are complete."""
        *lines, self._received = self._received.split(b"\n")
        return lines


def sample_of(line: bytes) -> Usage | None:
    """Return the usage in one sample, or None if it has none, as when the process has ended."""
    try:
        sample = json.loads(line)
        cpu_time, memory = sample["cpu_stats"]["cpu_usage"]["total_usage"], sample["memory_stats"]
        peak = memory.get("max_usage") or memory.get("usage") or 0  # version 2 of control groups has no `max_usage` here
        return Usage(cpu_time / _NANOSECONDS, int(peak) or None) if cpu_time > 0 else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
