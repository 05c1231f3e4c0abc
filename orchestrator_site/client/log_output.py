"""Writes the log of a job: its stdout to stdout and its stderr to stderr, byte for byte, or as JSON."""

import json
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import BinaryIO, Final, Protocol

from orchestrator_site.client.interrupts import Interrupts
from orchestrator_site.client.service.api import LogLine

STREAMS: Final = ("stdout", "stderr")

Piece = tuple[BinaryIO, bytes]


class LogOutput(Protocol):
    """Takes the lines of a log in order."""

    def write(self, lines: Iterable[LogLine]) -> None:
        """Write lines."""

    def settle(self, exact: Callable[[LogLine], bytes]) -> None:
        """Note that no line follows for now. `exact` gets a line as it was printed."""


class RawLog:
    """The bytes that the job printed.

    The API's lines do not say whether a line feed ended the last one of a stream, and these are the last lines of the log. So
    those that may be the last ones are held until others follow. If none comes for a while, their exact bytes are asked for.
    """

    def __init__(self, stdout: BinaryIO, stderr: BinaryIO, *, write: Callable[[Sequence[Piece]], None]) -> None:
        """Take the two streams, and what writes to them. If that raises, it must keep what is left for its next call."""
        self._streams = dict(zip(STREAMS, (stdout, stderr), strict=True))
        self._write = write
        self._held: list[LogLine] = []

    def write(self, lines: Iterable[LogLine]) -> None:
        """Write lines, except those that may be the last ones of their streams."""
        lines = [*self._held, *lines]
        held = 2 if len(lines) > 1 and lines[-2].stream != lines[-1].stream else 1
        self._held = lines[-held:]
        self._write([(self._streams[stream], text) for stream, text in _texts_of(lines[:-held]) if stream in self._streams])

    def settle(self, exact: Callable[[LogLine], bytes]) -> None:
        """Write the lines that were held. They stay held if `exact` raises."""
        pieces = [(self._streams[line.stream], exact(line)) for line in self._held if line.stream in self._streams]
        self._held = []
        self._write(pieces)


class JsonLog:
    """Each line as the JSON object that the API has for it."""

    def __init__(self, stdout: BinaryIO, *, write: Callable[[Sequence[Piece]], None]) -> None:
        self._stdout = stdout
        self._write = write

    def write(self, lines: Iterable[LogLine]) -> None:
        text = "".join(f"{json.dumps(line.as_json)}\n" for line in lines)
        self._write([(self._stdout, text.encode())])

    def settle(self, exact: Callable[[LogLine], bytes]) -> None:
        """Do nothing."""


class InterruptibleWriter:
    """Writes to files, pipes and terminals. A signal may interrupt it while a reader is slow, which loses and repeats nothing."""

    def __init__(self, interrupts: Interrupts, *, before_write: Callable[[BinaryIO, bytes], None]) -> None:
        """Take also what to call with a stream before bytes are written to it."""
        self._interrupts = interrupts
        self._before_write = before_write
        self._left: deque[tuple[BinaryIO, memoryview]] = deque()

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write the pieces, after those that an interruption left."""
        self._left.extend((stream, memoryview(data)) for stream, data in pieces if data)
        while self._left:
            stream, rest = self._left[0]
            with self._interrupts.allowed():
                select.select([], [stream], [])
            data = bytes(rest[: select.PIPE_BUF])  # the most that cannot block now
            self._before_write(stream, data)
            written = os.write(stream.fileno(), data)
            if written < len(rest):
                self._left[0] = (stream, rest[written:])
            else:
                self._left.popleft()


def _texts_of(lines: Iterable[LogLine]) -> Iterator[tuple[str, bytes]]:
    """Yield the stream and the text of lines; successive lines of a stream together."""
    for stream, group in groupby(lines, key=lambda line: line.stream):
        text = "".join(f"{line.text}\n" if line.has_end else line.text for line in group)
        yield stream, text.encode(errors="replace")


def standard_output(*, as_json: bool, before_write: Callable[[BinaryIO, bytes], None], interrupts: Interrupts) -> LogOutput:
    """Return an output to this process's own stdout and stderr."""
    write = InterruptibleWriter(interrupts, before_write=before_write).write
    if as_json:
        return JsonLog(sys.stdout.buffer, write=write)
    return RawLog(sys.stdout.buffer, sys.stderr.buffer, write=write)
