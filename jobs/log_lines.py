"""From frames of bytes to lines of text, in batches, with a cursor to go on from. Pure: no clock, no I/O.

A line ends at LF, which is not part of its text; CR stays. Bytes that are no UTF-8, and NUL, become U+FFFD, just as if
the whole line were decoded at once. A line that is longer than `ENCODED_LIMIT` as encoded in an event is cut on a
character boundary into pieces as long as possible, so what is held of an unfinished line is bounded too. Each line says
how it ends, so that what was printed can be put together again.

Whoever starts again from a committed cursor gets exactly the lines that would have come without stopping.
"""

import codecs
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jobs.engine.protocol import Frame, StreamName
from orchestrator_site.base.intervals import LogIntervals

ENCODED_LIMIT: Final = 48 * 1024  # bytes of the lines of one event, as JSON
BATCH_LIMIT: Final = 8 * ENCODED_LIMIT  # of those that are committed together
_STREAMS: Final[tuple[StreamName, ...]] = ("stdout", "stderr")
_SEPARATOR: Final = 2  # bytes: `, ` after a text, or its share of the brackets
_LARGEST_CHARACTER: Final = 6  # bytes: \u001b
_REPLACEMENT: Final = "\ufffd"

_ESCAPED: Final = re.compile(r'["\\\x00-\x1f]')
_ESCAPE_EXTRA: Final = {  # bytes that the escape is longer than the character
    character: len(json.dumps(character)) - len('""') - 1 for character in ['"', "\\", *map(chr, range(0x20))]
}


class Ending(StrEnum):
    """What follows the text of a line in its stream."""

    LINE_FEED = "line feed"
    PARTIAL = "partial"  # the next piece of the same line
    NOTHING = "nothing"  # the end of the stream, or a gap
    MARKER = "marker"  # a line feed: the line is the service's own, on a line of its own whatever came before


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or one piece of a longer one. `time` is that of the frame in which the line began."""

    stream: StreamName
    time: str
    text: str
    ending: Ending = Ending.LINE_FEED


@dataclass(frozen=True, slots=True)
class Cursor:
    """How much of a log was consumed: the frames from its start, and of each stream the line that has not ended.

    The times say when these lines began. Without them everything but the time of that one line is still exact.
    """

    frames: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_time: str = ""
    stderr_time: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines in the order in which they ended, and the cursor to commit with them."""

    lines: tuple[Line, ...]
    cursor: Cursor
    encoded_size: int  # bytes, as in `encoded_size`


class LineSplitter:
    """Takes the frames that follow `cursor`; gives batches of lines.

    It holds one batch, which is due at 384 KiB (eight events), and at most 48 KiB of an unfinished line of each stream.
    """

    def __init__(self, cursor: Cursor | None = None, intervals: LogIntervals = LogIntervals()) -> None:
        cursor = cursor or Cursor()
        self._intervals = intervals
        self._frames = cursor.frames
        self._unfinished = {
            "stdout": _Unfinished("stdout", cursor.stdout, cursor.stdout_time),
            "stderr": _Unfinished("stderr", cursor.stderr, cursor.stderr_time),
        }
        self._lines: list[Line] = []
        self._encoded_size = 0
        self._due_at: float | None = None

    def feed(self, frame: Frame) -> None:
        """Take the next frame of the log."""
        self._frames += 1
        self._add(self._unfinished[frame.stream].feed(frame.data, frame.time))

    def due(self, now: float) -> bool:
        """Whether to `take` now (`now`: monotonic, in seconds).

        Ask after each frame: the 250 ms of a batch begin when this first sees a line of it.
        """
        if not self._lines:
            return False
        if self._due_at is None:
            self._due_at = now + self._intervals.batch
        return self._encoded_size >= BATCH_LIMIT or now >= self._due_at

    def take(self) -> Batch:
        """The lines since the last `take`, maybe none, and the cursor behind them."""
        stdout, stderr = self._unfinished["stdout"], self._unfinished["stderr"]
        cursor = Cursor(self._frames, stdout.held, stderr.held, stdout.time, stderr.time)
        batch = Batch(tuple(self._lines), cursor, self._encoded_size)
        self._lines, self._encoded_size, self._due_at = [], 0, None
        return batch

    def finish(self) -> None:
        """The log has ended: what is unfinished is the last line of its stream."""
        for stream in _STREAMS:
            self.break_off(stream)

    def break_off(self, stream: StreamName) -> None:
        """End the unfinished line of this stream: what follows does not belong to it."""
        self._add(self._unfinished[stream].finish())

    def _add(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._lines.append(line)
            self._encoded_size += encoded_size(line.text)


def encoded_size(text: str) -> int:
    """Bytes that a text takes in an array of JSON strings in UTF-8; the sizes of all add up to the array's."""
    return _content_size(text) + len('""') + _SEPARATOR


def group(lines: Iterable[Line]) -> list[list[Line]]:
    """The lines of a batch as the payloads of events, each of one stream and at most 48 KiB as encoded.

    Lines are grouped by stream over the whole batch, so that a job that writes to both in turn costs few events:
    within a stream the order is exact, between the two it is that of the batches.
    """
    groups: list[list[Line]] = []
    by_stream: dict[StreamName, list[Line]] = {}
    for line in lines:
        by_stream.setdefault(line.stream, []).append(line)
    for of_stream in by_stream.values():
        room = 0
        for line in of_stream:
            size = encoded_size(line.text)
            if size > room:
                groups.append([])
                room = ENCODED_LIMIT
            groups[-1].append(line)
            room -= size
    return groups


def _content_size(text: str) -> int:
    """As `json.dumps(text, ensure_ascii=False)` without its quotes, at a tenth of the cost for an ordinary line."""
    size = len(text) if text.isascii() else len(text.encode())
    return size + sum(_ESCAPE_EXTRA[character] for character in _ESCAPED.findall(text))


class _Unfinished:
    """The line of one stream that has not ended yet."""

    _room: Final = ENCODED_LIMIT - len('""') - _SEPARATOR

    def __init__(self, stream: StreamName, held: bytes, time: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._parts: list[str] = []
        self._size = 0  # of all parts, as encoded
        self._time = time
        for _ in self.feed(held, time):
            raise ValueError("a cursor holds more than one unfinished line")

    @property
    def held(self) -> bytes:
        """What to feed to get here again. Characters replaced once are kept as replaced: they decode to themselves."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return "".join(self._parts).encode() + self._incomplete

    @property
    def time(self) -> str:
        """When the line began; empty where none has."""
        return self._time if self._parts or self._incomplete else ""

    @property
    def _incomplete(self) -> bytes:
        """The first bytes of a character whose last ones are still to come."""
        return self._decoder.getstate()[0]

    def feed(self, data: bytes, time: str) -> Iterator[Line]:
        self._time = self.time or time
        first, *others = self._decode(data).split("\n")
        yield from self._hold(first)
        for text in others:
            yield self._end()
            self._time = time
            yield from self._hold(text)

    def finish(self) -> Iterator[Line]:
        yield from self._hold(self._decode(b"", final=True))
        if self._parts:
            yield self._end(Ending.NOTHING)

    def _decode(self, data: bytes, final: bool = False) -> str:
        return self._decoder.decode(data, final).replace("\0", _REPLACEMENT)

    def _hold(self, text: str) -> Iterator[Line]:
        """Add to the line; yields the pieces that are full."""
        while text:
            size = self._fitting_size(text)
            if size is None:
                fits = self._fitting_length(text)
                self._parts.append(text[:fits])
                text = text[fits:]
                yield self._end(Ending.PARTIAL)
            else:
                self._parts.append(text)
                self._size += size
                return

    def _fitting_size(self, text: str) -> int | None:
        """Its size as encoded, None where it does not fit any more."""
        if len(text) > self._room - self._size:
            return None
        size = _content_size(text)
        return size if size <= self._room - self._size else None

    def _fitting_length(self, text: str) -> int:
        """How many of its characters fit."""
        room = self._room - self._size
        least, most = min(len(text), room // _LARGEST_CHARACTER), min(len(text), room)
        return bisect_right(range(most + 1), room, lo=least, key=lambda length: _content_size(text[:length])) - 1

    def _end(self, ending: Ending = Ending.LINE_FEED) -> Line:
        line = Line(self._stream, self._time, "".join(self._parts), ending)
        self._parts, self._size = [], 0
        return line
