"""Decodes the log of a pod's container, as the API gives it with timestamps, into frames. Without I/O.

The node keeps a log as entries: lines, and pieces of 16 KiB of longer lines. The API joins the entries of a line, and puts the
time of the first before it, with nine decimals and in the time zone of the node. A last line without a line feed comes without
one.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from jobs.engine.protocol import Frames
from jobs.errors import EngineUnavailable

PIECE_BYTES: Final = 16 * 1024  # longer lines are cut into frames of this size
TIME_BYTES: Final = 36  # of the time before a line, at most, and the space behind it

_MAX_SAID: Final = 1000  # bytes of what is not a line of a log
_TIME: Final = rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d)) "
_BEGINNING: Final = re.compile(_TIME)
_LINES: Final = re.compile(_TIME + rb"(.*\n)")
_ZONE: Final = re.compile(r"[+-]\d\d:\d\d$")


class LogNotSent(EngineUnavailable):
    """The node answers, but it does not send the log, or not all of it: it restarts, or has lost it."""


class LogDecoder:
    """A decoder of a log that is received in parts, which end anywhere. It holds less than 17 KiB."""

    def __init__(self, *, may_begin_in_line: bool = False) -> None:
        """With `may_begin_in_line` the log may begin with the rest of a line, without a time, which is left out."""
        self._undecoded = b""  # of the current line, with its time unless that has been decoded
        self._time = b""  # of the current line, of which pieces have been decoded
        self._is_left_out = False  # whether the current line is
        self._may_begin_in_line = may_begin_in_line

    def decode(self, received: bytes) -> Frames | None:
        """Return the frames that are complete now, if any. Raise `LogNotSent` if this is not a log."""
        log = self._undecoded + received
        end = log.rfind(b"\n") + 1
        whole = log[:end]
        lines = [] if self._time or self._is_left_out else _LINES.findall(whole)
        if lines and sum(map(len, chain.from_iterable(lines))) + len(lines) == end:  # the usual case, several times as fast
            times, data = zip(*lines, strict=True)
            if max(map(len, data)) <= PIECE_BYTES:
                self._may_begin_in_line = False
                self._undecoded = log[end:]
                rest = list(self._cut_unfinished())
                return _frames((*times, *(time for time, _ in rest)), (*data, *(piece for _, piece in rest)))
        return _frames_of(self._decode_each(log))

    def finish(self) -> Frames | None:
        """Return the rest of a log that has ended: a line without a line feed. Raise `LogNotSent` if this is not a log."""
        rest, self._undecoded = self._undecoded, b""
        return _frames_of(self._decode_line(rest)) if rest else None

    def _decode_each(self, log: bytes) -> Iterator[tuple[bytes, bytes]]:
        *lines, self._undecoded = log.split(b"\n")
        for line in lines:
            yield from self._decode_line(line + b"\n")
            self._time, self._is_left_out = b"", False
        yield from self._cut_unfinished()

    def _decode_line(self, line: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pieces of a line, or of the rest of one."""
        text = self._without_time(line)
        if not self._is_left_out:
            for start in range(0, len(text), PIECE_BYTES):
                yield self._time, text[start : start + PIECE_BYTES]

    def _cut_unfinished(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the full pieces of a line that has not ended, so that it is not held."""
        if len(self._undecoded) < TIME_BYTES + PIECE_BYTES:
            return
        text = self._without_time(self._undecoded)
        full = len(text) - len(text) % PIECE_BYTES
        self._undecoded = b"" if self._is_left_out else text[full:]
        if not self._is_left_out:
            for start in range(0, full, PIECE_BYTES):
                yield self._time, text[start : start + PIECE_BYTES]

    def _without_time(self, line: bytes) -> bytes:
        """Return a line without its time, which is kept for its pieces."""
        if self._time or self._is_left_out:
            return line
        beginning = _BEGINNING.match(line)
        may_begin_in_line, self._may_begin_in_line = self._may_begin_in_line, False
        if beginning is not None:
            self._time = beginning[1]
            return line[beginning.end() :]
        if not may_begin_in_line:
            # A node that fails while it sends a log appends the reason to it.
            said = line[:_MAX_SAID].decode(errors="replace").strip()
            raise LogNotSent(f"the node does not send the log, but: {said}")
        self._is_left_out = True
        return line


def time_at_start(log: bytes) -> str:
    """Return the time at the start of a log, in UTC; empty if there is none."""
    beginning = _BEGINNING.match(log)
    return "" if beginning is None else _in_utc(beginning[1].decode())


def _frames_of(pieces: Iterator[tuple[bytes, bytes]]) -> Frames | None:
    decoded = list(pieces)
    return _frames([time for time, _ in decoded], [piece for _, piece in decoded]) if decoded else None


def _frames(times: Sequence[bytes], data: Sequence[bytes]) -> Frames:
    joined = b" ".join(times).decode()
    in_words = joined.split(" ")
    return Frames("stdout", in_words if joined.count("Z") == len(in_words) else list(map(_in_utc, in_words)), data)


def _in_utc(time: str) -> str:
    """Return a time in UTC, so that times can be compared as texts."""
    if not _ZONE.search(time):
        return time
    moment = datetime.fromisoformat(f"{time[:19]}{time[-6:]}").astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{time[19:29]}Z"
