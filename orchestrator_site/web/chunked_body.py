"""Decodes a chunked request body as its bytes arrive."""

import re
from collections.abc import Generator
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http.body import CHUNK_EXT_RE

from orchestrator_site.base.http import error_texts
from orchestrator_site.web.refusals import Refusal

_MAX_LINE_BYTES: Final = 1024  # of a chunk size with its extensions, or of one trailer
_MAX_FRAMING_BYTES: Final = 256 * 1024  # all that is not data: one-byte chunks would cost the server more than the client
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)" + CHUNK_EXT_RE.pattern)


def decode_chunks(request: Any, buffer: bytearray, body: bytearray, max_bytes: int) -> Generator[None]:
    """Move a chunked body from `buffer` to `body`; check its trailers and drop them. Raise `Refusal`.

    Yield whenever more bytes are needed in `buffer`, and return when the body is complete; the rest of `buffer` then belongs
    to the next request.
    """
    framing = _MAX_FRAMING_BYTES
    while True:
        line = yield from _line(buffer)
        framing -= len(line)
        size = _chunk_size(line)
        if size == 0:
            break
        if len(body) + size > max_bytes:
            raise too_large()
        yield from _move(buffer, body, size)
        yield from _end_of_line(buffer)
        framing -= 4  # the two line ends
        if framing < 0:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body has too many small chunks")
    trailers: list[bytes] = []
    while line := (yield from _line(buffer)):
        trailers.append(line)
        framing -= len(line)
        if framing < 0:
            raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the trailers are too large")
    if trailers:
        request.parse_headers(b"\r\n".join(trailers), from_trailer=True)


def too_large() -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error_texts.BY_STATUS[413])


def _line(buffer: bytearray) -> Generator[None, None, bytes]:
    while (end := buffer.find(b"\r\n", 0, _MAX_LINE_BYTES + 2)) < 0:
        if len(buffer) > _MAX_LINE_BYTES:
            raise _malformed()
        yield
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line


def _end_of_line(buffer: bytearray) -> Generator[None]:
    while len(buffer) < 2:
        yield
    if buffer[:2] != b"\r\n":
        raise _malformed()
    del buffer[:2]


def _move(buffer: bytearray, body: bytearray, size: int) -> Generator[None]:
    while True:
        piece = buffer[:size]
        body += piece
        del buffer[: len(piece)]
        size -= len(piece)
        if not size:
            return
        yield


def _chunk_size(line: bytes) -> int:
    match = _SIZE_LINE.fullmatch(line)
    if match is None:
        raise _malformed()
    return int(match[1], 16)


def _malformed() -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, error_texts.INVALID_CHUNKS)
