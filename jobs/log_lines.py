"""Splits frames of bytes into lines of text, in batches, with a cursor to resume from. Without I/O.

A line ends with LF, which is not part of its text; CR is kept. Bytes that are not UTF-8, and NUL, become U+FFFD, as if the whole
line were decoded at once. A line that takes more than `MAX_EVENT_BYTES` in an event is cut on character boundaries into pieces
as long as possible, so the memory for an unfinished line is bounded. Each line says how it ends, so the printed text can be
restored.

Resuming from a committed cursor gives exactly the lines that would have come without the interruption.
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

MAX_EVENT_BYTES: Final = 48 * 1024  # of the lines of one event, as JSON
MAX_BATCH_BYTES: Final = 8 * MAX_EVENT_BYTES  # of the lines that are committed together
_STREAMS: Final[tuple[StreamName, ...]] = ("stdout", "stderr")
_SEPARATOR: Final = 2  # bytes of `, ` after a text; the last text has the brackets instead
_MAX_CHARACTER_BYTES: Final = 6  # as in \u001b
_REPLACEMENT: Final = "\ufffd"

_ESCAPED: Final = re.compile(r'["\\\x00-\x1f]')
_ESCAPE_EXTRA: Final = {  # bytes by which the escape is longer than the character
    character: len(json.dumps(character)) - len('""') - 1 for character in ['"', "\\", *map(chr, range(0x20))]
}


class Ending(StrEnum):
    """The end of a line in its stream."""

    LINE_FEED = "line feed"
    PARTIAL = "partial"  # the next piece of the same line
    NOTHING = "nothing"  # the end of the stream, or a gap
    MARKER = "marker"  # a line feed; the line was added by the service and starts a new line, whatever came before it


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or a piece of a longer one. `time` is the engine's timestamp of the frame in which the line began."""

    stream: StreamName
    time: str
    text: str
    ending: Ending = Ending.LINE_FEED


@dataclass(frozen=True, slots=True)
class Cursor:
    """The part of a log that was processed: the number of frames, and the unfinished line of each stream.

    The times are those at which these lines began. If they are missing, only the times of these two lines are lost.
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
    encoded_size: int  # bytes of all lines, see `encoded_size`


class LineSplitter:
    """A splitter of the frames that follow `cursor` into batches of lines.

    It holds one batch, which is due at 384 KiB (eight events), and at most 48 KiB of the unfinished line of each stream.
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
        """Process the next frame of the log."""
        self._frames += 1
        self._add(self._unfinished[frame.stream].feed(frame.data, frame.time))

    def due(self, now: float) -> bool:
        """Return whether to `take` the batch now. `now` is in seconds on the monotonic clock.

        Call this after each frame: the waiting time of a batch starts with the first call that finds a line in it.
        """
        if not self._lines:
            return False
        if self._due_at is None:
            self._due_at = now + self._intervals.batch
        return self._encoded_size >= MAX_BATCH_BYTES or now >= self._due_at

    def take(self) -> Batch:
        """Return the lines since the last `take`, if any, and the cursor after them."""
        stdout, stderr = self._unfinished["stdout"], self._unfinished["stderr"]
        cursor = Cursor(self._frames, stdout.held, stderr.held, stdout.time, stderr.time)
        batch = Batch(tuple(self._lines), cursor, self._encoded_size)
        self._lines, self._encoded_size, self._due_at = [], 0, None
        return batch

    def finish(self) -> None:
        """End the unfinished line of each stream, because the log has ended."""
        for stream in _STREAMS:
            self.break_off(stream)

    def break_off(self, stream: StreamName) -> None:
        """End the unfinished line of one stream, because what follows does not belong to it."""
        self._add(self._unfinished[stream].finish())

    def _add(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._lines.append(line)
            self._encoded_size += encoded_size(line.text)


def encoded_size(text: str) -> int:
    """Return the bytes of a text in a JSON array of strings, in UTF-8. The sizes of all texts add up to that of the array."""
    return _content_size(text) + len('""') + _SEPARATOR


def group(lines: Iterable[Line]) -> list[list[Line]]:
    """Group the lines of a batch by event: each group has one stream and at most 48 KiB as encoded.

    Lines are grouped by stream over the whole batch, so a job that alternates between both streams needs few events. The order
    is exact within a stream; between the streams it is that of the batches.
    """
    groups: list[list[Line]] = []
    by_stream: dict[StreamName, list[Line]] = {}
    for line in lines:
        by_stream.setdefault(line.stream, []).append(line)
    for of_stream in by_stream.values():
        left = 0
        for line in of_stream:
            size = encoded_size(line.text)
            if size > left:
                groups.append([])
                left = MAX_EVENT_BYTES
            groups[-1].append(line)
            left -= size
    return groups


def _content_size(text: str) -> int:
    """Return the size of `json.dumps(text, ensure_ascii=False)` without its quotes, ten times as fast for ordinary lines."""
    size = len(text) if text.isascii() else len(text.encode())
    return size + sum(_ESCAPE_EXTRA[character] for character in _ESCAPED.findall(text))


class _Unfinished:
    """The line of one stream that has not ended yet."""

    _max_size: Final = MAX_EVENT_BYTES - len('""') - _SEPARATOR

    def __init__(self, stream: StreamName, held: bytes, time: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._parts: list[str] = []
        self._size = 0  # bytes of all parts, as encoded
        self._time = time
        for _ in self.feed(held, time):
            raise ValueError("a cursor holds more than one unfinished line")

    @property
    def held(self) -> bytes:
        """The bytes that restore this line when they are fed again. Replaced characters stay replaced."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return "".join(self._parts).encode() + self._incomplete

    @property
    def time(self) -> str:
        """When the line began; empty if there is no line."""
        return self._time if self._parts or self._incomplete else ""

    @property
    def _incomplete(self) -> bytes:
        """The first bytes of a character that is not complete yet."""
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
        """Add text to the line, and yield the pieces that are full."""
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
        """Return the encoded size of a text, or None if it does not fit."""
        if len(text) > self._max_size - self._size:
            return None
        size = _content_size(text)
        return size if size <= self._max_size - self._size else None

    def _fitting_length(self, text: str) -> int:
        """Return how many characters of a text fit."""
        left = self._max_size - self._size
        low, high = min(len(text), left // _MAX_CHARACTER_BYTES), min(len(text), left)
        return bisect_right(range(high + 1), left, lo=low, key=lambda length: _content_size(text[:length])) - 1

    def _end(self, ending: Ending = Ending.LINE_FEED) -> Line:
        line = Line(self._stream, self._time, "".join(self._parts), ending)
        self._parts, self._size = [], 0
        return line
