"""Parses requests from bytes as they arrive, without I/O.

gunicorn's parser reads each head and so decides what a valid request is. The end of a body is found here, because gunicorn
would wait for it in a thread.
"""

import re
from collections.abc import Generator
from enum import Enum, auto
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES
from orchestrator_site.web.chunked_body import decode_chunks, too_large
from orchestrator_site.web.refusals import Refusal

MAX_HEAD_BYTES: Final = 32 * 1024  # request line and headers: as much as common proxies allow

_HOST: Final = re.compile(r"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


_ENDED: Final = object()


class Stage(Enum):
    """The part of its next request that a client has sent."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class RequestReader:
    """A reader of the requests of one connection. Once it has raised `Refusal`, the connection cannot be read any further."""

    def __init__(self, cfg: Any, client: Any) -> None:
        self._cfg = cfg
        self._client = client
        self._buffer = bytearray()
        self._checked = 0  # bytes of the buffer known to hold no end of a head
        self._body = bytearray()
        self._reading_body: Generator[None] | None = None
        self.request: Any = None  # the one whose body is being read
        self._continue_expected = False
        self.answers_without_body = False  # the latest request is a HEAD

    @property
    def stage(self) -> Stage:
        if self._reading_body is not None:
            return Stage.BODY
        # One empty line before a request is allowed: some clients end their body with it.
        return Stage.NOTHING if b"\r\n".startswith(self._buffer) else Stage.HEAD

    @property
    def held(self) -> int:
        """Return how many bytes are kept in memory."""
        return len(self._buffer) + len(self._body)

    def feed(self, data: bytes) -> None:
        """Add bytes that the client has sent."""
        if self._reading_body is None:
            self.answers_without_body = False
        self._buffer += data

    def forget(self) -> None:
        """Free the memory of a connection that is read no further."""
        self._buffer.clear()
        self._body.clear()

    def end(self) -> None:
        """Note that the client sends no more. Raise `Refusal` in the middle of a request."""
        match self.stage:
            case Stage.HEAD:
                raise Refusal(HTTPStatus.BAD_REQUEST, "the request ended early")
            case Stage.BODY:
                raise Refusal(HTTPStatus.BAD_REQUEST, error_texts.BODY_ENDED_EARLY)

    def next_request(self) -> Any:
        """Return the next request (gunicorn's `Request`, with its whole body) if all of it has arrived, else None.

        Raise `Refusal` for an invalid request, or one that is larger than allowed.
        """
        try:
            if self._reading_body is None and not self._begin():
                return None
            if not self._body_is_complete():
                return None
        except ParseException as error:
            raise Refusal.from_parser(error) from error
        request, body = self.request, self._body
        self.request, self._body, self._reading_body, self._continue_expected = None, bytearray(), None, False
        request.body = BytesIO(body)
        return request

    def take_continue(self) -> bool:
        """Return whether the client waits for `100 Continue` before it sends the body; true only once."""
        expected, self._continue_expected = self._continue_expected, False
        return expected and not self._buffer and not self._body

    def _begin(self) -> bool:
        head = self._take_head()
        if head is None:
            return False
        self.request = request = Request(self._cfg, IterUnreader((head,)), self._client)
        _check_target_and_host(request)
        self._reading_body = self._body_reader(request)
        self._continue_expected = request._expected_100_continue
        request._expected_100_continue = False  # `100 Continue` is not the application's concern
        return True

    def _take_head(self) -> bytes | None:
        end = self._buffer.find(b"\r\n\r\n", max(0, self._checked - 3))
        self._check_head(end)
        if end < 0:
            self._checked = len(self._buffer)
            return None
        head = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        self._checked = 0
        self.answers_without_body = head.startswith(b"HEAD ")
        return head

    def _check_head(self, end: int) -> None:
        size = end if end >= 0 else len(self._buffer)
        if size > MAX_HEAD_BYTES:
            if self._buffer.find(b"\r\n", 1, MAX_HEAD_BYTES) < 0:
                raise Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
            raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request headers are too large")
        # A line feed without a carriage return does not end a line: such a head would never be complete.
        if end < 0 and self._buffer.count(b"\n", self._checked) != self._buffer.count(b"\r\n", max(0, self._checked - 1)):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")

    def _body_reader(self, request: Any) -> Generator[None]:
        reader = request.body.reader
        if isinstance(reader, ChunkedReader):
            if any(name == "TRANSFER-ENCODING" and value.lower() != "chunked" for name, value in request.headers):
                raise Refusal(HTTPStatus.NOT_IMPLEMENTED, error_texts.UNSUPPORTED_CODING)
            return decode_chunks(request, self._buffer, self._body, MAX_BODY_BYTES)
        if reader.length > MAX_BODY_BYTES:
            raise too_large()
        return self._read_length(reader.length)

    def _read_length(self, length: int) -> Generator[None]:
        while len(self._buffer) < length:
            yield
        self._body += self._buffer[:length]
        del self._buffer[:length]

    def _body_is_complete(self) -> bool:
        assert self._reading_body is not None  # noqa: S101 - for the type checker
        return next(self._reading_body, _ENDED) is _ENDED


def _check_target_and_host(request: Any) -> None:
    """Refuse a missing or invalid host (RFC 9112, 3.2); the host in an absolute target replaces the header's."""
    hosts = [value for name, value in request.headers if name == "HOST"]
    if request.version >= (1, 1) and not hosts:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the Host header is required")
    if "://" in request.uri and not request.uri.startswith("/"):
        target = urlsplit(request.uri)
        if target.scheme.lower() not in ("http", "https"):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the request target must be a path or an http URL")
        hosts.append(target.netloc)
        request.headers = [(name, value) for name, value in request.headers if name != "HOST"] + [("HOST", target.netloc)]
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the Host header is invalid")
