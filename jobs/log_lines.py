"""Splits frames of bytes into lines of text, in batches, with a cursor to resume from. Without I/O.

A line ends with LF, which is not part of its text; CR is kept. Bytes that are not UTF-8, and NUL, become U+FFFD, as if the whole
line were decoded at once. A line that takes more than `MAX_EVENT_BYTES` in an event is cut on character boundaries into pieces
as long as possible, so the memory for an unfinished line is bounded. Each line says how it ends, so the printed text can be
restored.

Resuming from a committed cursor gives exactly the lines that would have come without the interruption.
"""

import codecs
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import accumulate, repeat
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Final, NamedTuple

from jobs.engine.protocol import Frames, StreamName
from orchestrator_site.base.intervals import LogIntervals

MAX_EVENT_BYTES: Final = 48 * 1024  # of the lines of one event, as JSON
# Of the lines that are committed together. The frames that come with the last of them make it 16 events, most of them full.
MAX_BATCH_BYTES: Final = 15 * MAX_EVENT_BYTES
_STREAMS: Final[tuple[StreamName, ...]] = ("stdout", "stderr")
_SEPARATOR: Final = 2  # bytes of `, ` after a text; the last text has the brackets instead
_MAX_CHARACTER_BYTES: Final = 6  # as in \u001b
_REPLACEMENT: Final = "\ufffd"


class Ending(StrEnum):
    """The end of a line in its stream."""

    LINE_FEED = "line feed"
    PARTIAL = "partial"  # the next piece of the same line
    NOTHING = "nothing"  # the end of the stream, or a gap
    MARKER = "marker"  # a line feed; the line was added by the service and starts a new line, whatever came before it


class Line(NamedTuple):
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
class Group:
    """The lines of one event, all of one stream."""

    lines: Sequence[Line]
    texts: str  # their texts as a JSON array

    def __len__(self) -> int:
        return len(self.lines)


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines in the order in which they ended, and the cursor to commit with them."""

    lines: tuple[Line, ...]
    cursor: Cursor
    encoded_size: int  # bytes of all lines, see `encoded_size`


class LineSplitter:
    """A splitter of the frames that follow `cursor` into batches of lines.

    It holds one batch, which is due at 720 KiB, and at most 48 KiB of the unfinished line of each stream.
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
        self.is_patient = False  # whether to wait longer, for larger batches

    @property
    def frames(self) -> int:
        """How many frames of the log were processed."""
        return self._frames

    @property
    def is_between_lines(self) -> bool:
        """Whether no stream has an unfinished line."""
        return all(unfinished.is_empty for unfinished in self._unfinished.values())

    def feed(self, frames: Frames) -> None:
        """Process the next frames of the log."""
        self._frames += len(frames)
        unfinished = self._unfinished[frames.stream]
        texts = _texts_of_whole_lines(frames) if unfinished.is_empty else None
        if texts is None:
            for frame in frames:
                self._add(unfinished.feed(frame.data, frame.time))
        else:  # the usual case, five times as fast
            self._lines += map(_new_line, zip(repeat(frames.stream), frames.times, texts, repeat(Ending.LINE_FEED)))
            self._encoded_size += encoded_size(texts)

    def due(self, now: float) -> bool:
        """Return whether to `take` the batch now. `now` is in seconds on the monotonic clock.

        Call this after each frame: the waiting time of a batch starts with the first call that finds a line in it.
        """
        if not self._lines:
            return False
        if self._due_at is None:
            self._due_at = now + (self._intervals.patient_batch if self.is_patient else self._intervals.batch)
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
            self._encoded_size += encoded_size([line.text])


def encoded_size(texts: Sequence[str]) -> int:
    """Return the bytes of a JSON array of strings, in UTF-8."""
    return _content_size("".join(texts)) + (len('""') + _SEPARATOR) * len(texts)


def group(lines: Sequence[Line]) -> list[Group]:
    """Group the lines of a batch by event: each group has one stream and at most 48 KiB as encoded.

    Lines are grouped by stream over the whole batch, so a job that alternates between both streams needs few events. The order
    is exact within a stream; between the streams it is that of the batches.
    """
    streams = list(dict.fromkeys(map(_stream_of, lines)))
    if len(streams) == 1:
        return list(_cut(lines))
    by_stream = ([line for line in lines if line.stream == stream] for stream in streams)
    return [some for of_stream in by_stream for some in _cut(of_stream)]


def _cut(lines: Sequence[Line]) -> Iterator[Group]:
    """Yield as many lines at a time as fit into an event. Each is encoded once, for its size and for the event."""
    encoded = list(map(encode_basestring, map(_text_of, lines)))
    sizes = map(len, encoded if all(map(str.isascii, encoded)) else map(str.encode, encoded))
    ends = list(accumulate(size + _SEPARATOR for size in sizes))
    start = size = 0
    while start < len(lines):
        end = bisect_right(ends, size + MAX_EVENT_BYTES)
        yield Group(lines[start:end], f"[{','.join(encoded[start:end])}]")
        start, size = end, ends[end - 1]


def _content_size(text: str) -> int:
    """Return the bytes of a text in JSON without its quotes."""
    encoded = encode_basestring(text)
    return (len(encoded) if encoded.isascii() else len(encoded.encode())) - len('""')


_stream_of, _text_of = attrgetter("stream"), attrgetter("text")
_new_line = partial(tuple.__new__, Line)  # makes a line of a tuple without calling anything in Python


def _texts_of_whole_lines(frames: Frames) -> list[str] | None:
    """Return the text of each frame if each is exactly one line, and short enough not to be cut."""
    if not frames.end_in_line_feeds:
        return None
    texts = b"".join(frames.data).decode(errors="replace").replace("\0", _REPLACEMENT).split("\n")
    del texts[-1]  # what follows the last line feed
    is_short = max(map(len, texts)) * _MAX_CHARACTER_BYTES <= _Unfinished.max_size
    return texts if len(texts) == len(frames) and is_short else None


class _Unfinished:
    """The line of one stream that has not ended yet."""

    max_size: Final = MAX_EVENT_BYTES - len('""') - _SEPARATOR

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
        return "" if self.is_empty else self._time

    @property
    def is_empty(self) -> bool:
        return not self._parts and not self._incomplete

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
        if len(text) > self.max_size - self._size:
            return None
        size = _content_size(text)
        return size if size <= self.max_size - self._size else None

    def _fitting_length(self, text: str) -> int:
        """Return how many characters of a text fit."""
        left = self.max_size - self._size
        low, high = min(len(text), left // _MAX_CHARACTER_BYTES), min(len(text), left)
        return bisect_right(range(high + 1), left, lo=low, key=lambda length: _content_size(text[:length])) - 1

    def _end(self, ending: Ending = Ending.LINE_FEED) -> Line:
        line = Line(self._stream, self._time, "".join(self._parts), ending)
        self._parts, self._size = [], 0
        return line
