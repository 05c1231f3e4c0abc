"""Reads the body of a streamed answer straight from its socket.

http.client cannot report "no byte for 250 ms" without giving up the connection, and cannot be woken by another thread
without taking that for the end of the body. So the chunked coding (RFC 9112, section 7.1) is decoded here: only its last
chunk proves that an answer is complete.
"""

import contextlib
import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import urllib3

from jobs.errors import EngineUnavailable
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

ANSWER_UNREADABLE: Final = "the engine's response cannot be read"
ANSWER_TOO_SHORT: Final = "the engine's response ended too early"

_CONNECTION_CLOSED: Final = "the engine closed the connection"
_RECEIVE_BYTES: Final = 64 * 1024
_MAX_SIZE_LINE_BYTES: Final = 4096
_END_OF_LINE: Final = b"\r\n"
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")  # int() also accepts -5, 0x5 and 5_0
_MAX_LOST_PROBES: Final = 3  # of TCP keep-alive, then the connection is broken


class ByteStream:
    """The body of one answer, for one reader. Setting `interrupt` ends reading with `Interrupted`."""

    def __init__(self, response: urllib3.BaseHTTPResponse, interrupt: Interrupt, intervals: EngineIntervals) -> None:
        self._reply = reply = response._fp  # type: ignore[attr-defined] # http.client's: no public way to the socket
        self._chunked = bool(reply.chunked)
        self._left = 0 if self._chunked else int(reply.length or 0)  # bytes of the current chunk, or of the body
        self._ended = not self._chunked and not self._left
        self._between_chunks = False
        self._undecoded = b""  # the beginning of a chunk's first line
        self._body = bytearray()
        self._interrupt = interrupt
        if reply.fp is None:  # an empty body: http.client has already released the connection
            return
        self._socket: socket.socket = reply.fp.raw._sock
        self._socket.setblocking(False)
        if self._socket.family != socket.AF_UNIX:
            for option in keep_alive_options(intervals):
                self._socket.setsockopt(*option)
        received = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            received = reply.fp.peek()  # with the headers
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._decode(received)

    def fileno(self) -> int:
        """Return the socket's file descriptor, for one thread that waits for several streams: see `ready` with 0 seconds."""
        return self._socket.fileno()

    def ready(self, seconds: float | None) -> bool:
        """Wait for a byte or for the end of the body, at most `seconds`; return False if neither came.

        Raise `EngineUnavailable`, `Interrupted`.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._body and not self._ended:
            if not self._receive(deadline):
                return False
        return True

    def read(self) -> bytes:
        """Return all that has come since the last call, waiting for a byte; nothing at the end of the body.

        Raise `EngineUnavailable`, `Interrupted`.
        """
        self.ready(None)
        self._interrupt.check()
        return self._take(len(self._body))

    def lines(self, max_length: int) -> Iterator[bytes]:
        """Yield the rest of the body line by line, and lines over `max_length` bytes in pieces. Raise what `read` raises."""
        while self.ready(None) and self._body:
            end = self._body.find(b"\n", 0, max_length)
            if end >= 0:
                yield self._take(end + 1)
            elif len(self._body) >= max_length or self._ended:
                yield self._take(max_length)
            else:
                self._receive(None)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._body[:size])
        del self._body[:size]
        return taken

    def _receive(self, deadline: float | None) -> bool:
        """Receive more bytes; return False if there are none at the deadline."""
        while True:
            self._interrupt.check()
            try:
                received = self._socket.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                if not self._poll.poll(_milliseconds_until(deadline)) and _has_passed(deadline):
                    return False
                continue
            except OSError as error:
                self._interrupt.check()
                raise EngineUnavailable(_CONNECTION_CLOSED) from error
            self._interrupt.check()  # its shutdown of the socket looks like the end of the stream
            if not received:
                raise EngineUnavailable(_CONNECTION_CLOSED)
            self._decode(received)
            return True

    def _decode(self, received: bytes) -> None:
        """Add the data in what was received to the body.

        Docker sends each line of a log in a chunk of its own: what this loop does takes part in the cost of a line.
        """
        encoded, position, left = self._undecoded + received, 0, self._left
        available = len(encoded)
        pieces: list[bytes] = []
        while position < available and not self._ended and (left or self._chunked):
            if left:
                piece = encoded[position : position + left]
                pieces.append(piece)
                position += len(piece)
                left -= len(piece)
                continue
            start = position + 2 if self._between_chunks else position  # after the CRLF that ends a chunk's data
            end = encoded.find(b"\r\n", start)
            if end < 0:
                break
            if start > position and not encoded.startswith(b"\r\n", position):
                raise EngineUnavailable(ANSWER_UNREADABLE)
            left = _chunk_size(encoded[start:end])
            position = end + 2
            self._between_chunks = True
            self._ended = not left
        self._body += b"".join(pieces)
        self._left, self._undecoded = left, encoded[position:]
        if not self._chunked:
            self._ended = not left
        elif not self._ended and len(self._undecoded) > _MAX_SIZE_LINE_BYTES:
            raise EngineUnavailable(ANSWER_UNREADABLE)
        if self._ended and self._undecoded == (_END_OF_LINE if self._chunked else b""):
            self._reply._close_conn()  # nothing of this answer is left: the connection can be used for another request


@lru_cache(maxsize=1024)  # takes a third of the time: lines of a log have similar lengths
def _chunk_size(line: bytes) -> int:
    """Return the size in the first line of a chunk. Raise `EngineUnavailable` if there is none."""
    size = _SIZE_LINE.fullmatch(line)
    if size is None:
        raise EngineUnavailable(ANSWER_UNREADABLE)
    return int(size[1], 16)


def keep_alive_options(intervals: EngineIntervals) -> list[tuple[int, int, int]]:
    """Return the options of a TCP socket with which the kernel detects that the engine's host has vanished."""
    options = {
        "TCP_KEEPIDLE": intervals.keep_alive,
        "TCP_KEEPINTVL": intervals.keep_alive_probe,
        "TCP_KEEPCNT": _MAX_LOST_PROBES,
    }
    known = [(name, value) for name, value in options.items() if hasattr(socket, name)]
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *((socket.IPPROTO_TCP, getattr(socket, name), int(value)) for name, value in known),
    ]


def _milliseconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)


def _has_passed(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
