"""An HTTP response whose status line and headers are bounded, for servers that are not trusted."""

import re
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from io import BufferedReader, BytesIO
from typing import Any, Final

_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_INTERIM_RESPONSES: Final = 10
# 1xx but 101, which is a final answer.
_INTERIM: Final = re.compile(rb"HTTP/[0-9.]+[ \t]+1(?!01)[0-9]{2}(?![0-9])")
_FIELD: Final = re.compile(rb"[!-9;-~]+:")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*[;\r\n]")


class BoundedResponse(HTTPResponse):
    """A response with a complete head of at most 64 KiB, after at most 10 interim responses (1xx).

    http.client limits the number of headers instead, accepts an incomplete head and reads interim responses without end.
    """

    fp: BufferedReader | BytesIO  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fp = _Stream(self.fp.detach())

    def begin(self) -> None:
        """Read the head. Raise `HTTPException` if it is too long or incomplete."""
        stream = self.fp
        self.fp = _Head(_final_head(stream))
        try:
            super().begin()
        finally:
            self.fp = stream
        codings = {coding.lower() for coding in self._values("Transfer-Encoding")} - {"", "identity"}
        if codings != ({"chunked"} if self.chunked else set()):
            raise HTTPException("the server used a transfer coding that was not requested")
        if len(set(self._values("Content-Length"))) > 1:
            raise HTTPException("the server sent more than one length of the body")
        if self.chunked and self.length == 0:  # a status that has no body, whatever the headers say: http.client waits for chunks
            self.chunked, self.will_close = False, True

    def read1(self, size: int = -1) -> bytes:
        """Read a part of the body. Raise `HTTPException` if it has fewer bytes than announced: http.client does not."""
        if self.fp is None or self.chunked or self.length is None:
            return super().read1(size)
        data = self.fp.read1(min(size, self.length) if size >= 0 else self.length) if self.length else b""
        self.length -= len(data)
        if not data and self.length:
            raise RemoteDisconnected("the connection ended in the body of the response")
        if not self.length:
            self.close()
        return data

    def _values(self, name: str) -> list[str]:
        """Return the members of a list, which may be spread over several headers."""
        return [member.strip() for value in self.headers.get_all(name, []) for member in value.split(",")]

    def _read_next_chunk_size(self) -> int:
        """Accept hexadecimal digits only: http.client also accepts `-1`, and then reads to the end of the connection."""
        line = self.fp.readline()
        if not line:
            raise RemoteDisconnected("the connection ended in the body of the response")
        chunk = _CHUNK.match(line)
        if chunk is None:
            raise HTTPException("the server sent a chunk with an invalid size")
        return int(chunk[1], 16)


class _Stream(BufferedReader):
    """The bytes of a connection. Consecutive lines (a head, trailers) have at most 64 KiB together."""

    _line_bytes = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        left = _MAX_HEAD_BYTES - self._line_bytes
        line = super().readline(left + 1 if size is None or size < 0 else min(size, left + 1))
        if len(line) > left:
            raise HTTPException(f"the server sent more than {_MAX_HEAD_BYTES} bytes of headers")
        self._line_bytes += len(line)
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        self._line_bytes = 0
        return super().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        self._line_bytes = 0
        return super().read1(size)

    def readinto(self, buffer: Any, /) -> int:
        self._line_bytes = 0
        return super().readinto(buffer)


class _Head(BytesIO):
    """A head that reads as two lines, the status and all the rest, because http.client accepts no more than 100 lines."""

    def readline(self, size: int | None = -1, /) -> bytes:
        return self.read() if self.tell() else super().readline(size)


def _final_head(stream: BufferedReader | BytesIO) -> bytes:
    for _ in range(_MAX_INTERIM_RESPONSES + 1):
        head = _read_head(stream)
        if not _INTERIM.match(head):
            return head
    raise HTTPException(f"the server sent more than {_MAX_INTERIM_RESPONSES} interim responses")


def _read_head(stream: BufferedReader | BytesIO) -> bytes:
    """Read a head up to its empty line, or only the first line of what is not HTTP.

    Folded lines become one: the parser keeps their line breaks. Lines that are not headers are dropped: http.client
    would ignore all headers after such a line, including the length of the body.
    """
    status = stream.readline()
    if not status.startswith(b"HTTP/"):
        return status
    head = bytearray(status.rstrip())
    while line := stream.readline():
        if line in (b"\r\n", b"\n"):
            return bytes(head + b"\n\n")
        content = line.strip(b" \t\r\n").replace(b"\r", b" ")
        if line[0] in b" \t":
            head += b" " + content
        elif _FIELD.match(content):
            head += b"\n" + content
    raise RemoteDisconnected("the connection ended in the headers of the response")
