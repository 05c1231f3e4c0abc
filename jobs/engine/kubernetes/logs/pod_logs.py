"""Reads the log of a pod's container, from any place in it, and finds out where the node has lost a part of it.

The facts, measured on Kubernetes 1.30 with containerd 1.6, and read in the kubelet's source (pkg/kubelet/kuberuntime/logs):

- The kubelet looks every 10 s whether a log has more than 10 MiB (its `containerLogMaxSize`), and then begins a new file. The API
  reads the current file only, so what was not read from the earlier ones is lost.
- A reader that follows goes on with the new file if it had been at the end of the old one before, and loses what the process
  printed in the moment of the change. One that lags reads the old file to its end, and then waits in vain for the next change.
- The end of a stream does not say that the process has ended: it also comes if the kubelet is restarted.
- `sinceTime` leaves out all lines with an earlier time, even if they are later in the log because the clock was set back.
"""

import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from jobs.engine.answer_stream import ANSWER_TOO_SHORT, ByteStream
from jobs.engine.kubernetes.logs.log_frames import LogDecoder, LogNotSent
from jobs.engine.kubernetes.logs.log_requests import LogRequests
from jobs.engine.protocol import START_OF_LOG, Frame, Frames, LogPosition
from jobs.errors import EngineRefused

_CHECKED_BYTES: Final = 256 * 1024  # of the log, between two looks whether the node has begun a new file
_GAP: Final = Frames("stdout", (), (), after_gap=True)
_LATER: Final = "~"  # than any time: for a file that is empty yet


@contextmanager
def open_log(
    requests: LogRequests,
    *,
    skip: int,
    tail: int | None,
    after: LogPosition | None,
    max_pause: float | None,
) -> Iterator[Iterator[Frames | None]]:
    """Yield the frames of a log; see `Engine.logs`. It is followed if `max_pause` is set: the seconds after which None comes."""
    with closing(LogReader(requests, skip, after).read(max_pause)) as frames:
        yield frames if tail is None else _last(frames, tail)


def _last(frames: Iterator[Frames | None], count: int) -> Iterator[Frames | None]:
    kept = deque((frame for some in frames if some is not None for frame in some), maxlen=count)
    yield from (Frames(frame.stream, [frame.time], [frame.data]) for frame in kept)


class LogReader:
    """A reader of one log, for one use of `read`."""

    def __init__(self, requests: LogRequests, skip: int, after: LogPosition | None) -> None:
        """Begin after the first `skip` frames, or at a place. If the process has ended the whole rest has to be there."""
        self._requests = requests
        self._skip = skip
        self._place = _Place(skip, after)
        self._position = after or START_OF_LOG  # behind what was yielded
        self._last: Frame | None = None  # that was received
        self._in_file = ""  # the time of a frame that the file has which is being read; empty if it is not known yet
        self._next_file = ""  # the time of the first frame of a later file, until that has been reached
        self._unchecked = 0  # bytes that were received since the last look at the node's file
        self._checked_at = time.monotonic()
        self._not_sent_since: float | None = None

    def read(self, max_pause: float | None) -> Generator[Frames | None]:
        """Yield the frames and, if `max_pause` is set, follow the log, and yield None once per pause of that many seconds.

        A node that does not send the rest of a log is asked again, until it counts as lost. Who follows a log has to look
        whether its process has ended, and tries again after that.
        """
        while True:
            try:
                yield from self._read_on(max_pause)
                return
            except LogNotSent as error:
                if max_pause is not None or not self._requests.is_final:
                    raise
                self._wait_for_node(error)
            self._place = _Place(self._skip, self._position)

    def _wait_for_node(self, error: LogNotSent) -> None:
        """Wait before the next try; raise `EngineRefused` if the node has had its time."""
        now = time.monotonic()
        self._not_sent_since = self._not_sent_since or now
        if now - self._not_sent_since >= self._requests.intervals.cluster_log:
            raise EngineRefused(f"the log counts as lost: {error}")
        self._requests.pause()

    def _read_on(self, max_pause: float | None) -> Iterator[Frames | None]:
        following = max_pause is not None
        if not following and self._requests.is_final and self._position.frames and self._ends_at(self._position):
            return
        while True:
            slack = self._requests.intervals.cluster_clock_slack
            since = {"sinceTime": _since(self._position.time, slack)} if self._position.frames else {}
            with self._requests.open(since, follow=following) as stream:
                if stream is not None:
                    yield from self._read_file(stream, LogDecoder(may_begin_in_line=bool(since)), max_pause)
            if not self._is_left_behind:
                break
            yield _GAP
            yield None
            self._place = _Place(0, self._position, gap_is_known=True)
            self._in_file = self._next_file = ""
        if not following and self._requests.is_final and not self._is_whole():
            raise LogNotSent(ANSWER_TOO_SHORT)

    def _read_file(self, stream: ByteStream, decoder: LogDecoder, max_pause: float | None) -> Iterator[Frames | None]:
        while True:
            if max_pause is not None and not stream.ready(max_pause):
                yield None
                yield from self._look_at_file(is_paused=True)
                if self._is_left_behind:
                    break
            received = stream.read()
            if not received:
                break
            self._unchecked += len(received)
            if max_pause is not None:
                yield from self._look_at_file()
            yield from self._accept(decoder.decode(received))
        yield from self._accept(decoder.finish())

    def _accept(self, frames: Frames | None) -> Iterator[Frames]:
        """Yield the frames that follow the place to begin at."""
        if frames is None:
            return
        self._last = next(iter(frames.part(-1)))
        frames = self._place.pass_on(frames)
        if not len(frames):
            return
        self._in_file = self._in_file or frames.times[0]
        self._position = self._position.moved(frames.times)
        self._skip, self._not_sent_since = 0, None
        if self._next_file and frames.times[-1] >= self._next_file:
            number = next(number for number, moment in enumerate(frames.times) if moment >= self._next_file)
            if number:
                yield frames.part(0, number)
            frames, self._next_file = replace(frames.part(number), after_gap=True), ""
        yield frames

    @property
    def _is_left_behind(self) -> bool:
        """Whether the node writes a later file than the one that is being read."""
        return self._next_file != "" and (self._last is None or self._last.time < self._next_file)

    def _look_at_file(self, *, is_paused: bool = False) -> Iterator[Frames]:
        """Find out whether the node has begun a new file; not too often, and never for a log that prints little.

        Yield a gap if it was noticed too late to say where it is.
        """
        if not self._in_file or self._unchecked < _CHECKED_BYTES:
            return
        if not is_paused and time.monotonic() - self._checked_at < self._requests.intervals.cluster_log_file:
            return
        first = self._requests.first_time()
        if not first:
            self._next_file = _LATER
        elif first > self._in_file:
            self._in_file = self._next_file = first
        self._unchecked, self._checked_at = 0, time.monotonic()
        if self._next_file and not self._is_left_behind:
            self._next_file = ""
            yield _GAP

    def _ends_at(self, place: LogPosition) -> bool:
        """Return whether a log that has ended has nothing after a place, as far as its last two entries show it."""
        times = [frame.time for frame in self._requests.last_frames()]
        is_clear = len(times) < 2 or times[0] != times[-1]  # else there may be more frames of this time before them
        return not times or (is_clear and place == START_OF_LOG.moved(times))

    def _is_whole(self) -> bool:
        """Return whether the log was read to its end: a node that is restarted ends its answers as if it were.

        The last entry is the last line, or the end of one that was longer or whose parts came from both streams.
        """
        received, last = self._last, self._requests.last_frames()
        if received is None or not last:
            return received is None and not last
        kept = last[-1]
        return received.time == kept.time or received.data.endswith(kept.data) or kept.data.endswith(received.data)


class _Place:
    """Where to begin in a log whose frames come in order."""

    def __init__(self, skip: int, after: LogPosition | None, *, gap_is_known: bool = False) -> None:
        self._skip = skip
        self._after = after if after is not None and after.frames else None
        self._gap_is_known = gap_is_known
        self._seen = 0  # frames of that time

    def pass_on(self, frames: Frames) -> Frames:
        """Return those of the next frames that follow the place."""
        if self._skip:
            skipped = min(self._skip, len(frames))
            self._skip -= skipped
            frames = frames.part(skipped)
        if self._after is not None:
            frames = self._behind(self._after, frames)
        return frames

    def _behind(self, place: LogPosition, frames: Frames) -> Frames:
        """Return those that follow a place. A later frame without one of its time before shows that it is in an earlier file."""
        for number, moment in enumerate(frames.times):
            if moment == place.time and self._seen < place.frames:
                self._seen += 1
            elif self._seen or moment > place.time:
                self._after = None
                return replace(frames.part(number), after_gap=not self._seen and not self._gap_is_known)
        return frames.part(len(frames))


def _since(moment: str, slack: float) -> str:
    """Return from when on to ask for lines: the API takes whole seconds."""
    return f"{datetime.fromisoformat(f'{moment[:19]}+00:00') - timedelta(seconds=slack):%Y-%m-%dT%H:%M:%SZ}"
