"""The HTTP client for all outgoing requests: callbacks, downloads and uploads.

It reaches public addresses and those of EGRESS_ALLOW only, connects to the very address it has checked, follows no redirects,
keeps no cookies, uses no proxy but EGRESS_PROXY and no `.netrc`, and ends at the deadline whatever the server does.
"""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import Final, Protocol
from urllib.parse import urlsplit

from orchestrator_site.base.egress.bounded_responses import BoundedResponse as Answer
from orchestrator_site.base.egress.connection_pool import ConnectionPool
from orchestrator_site.base.egress.deadlines import watchdog
from orchestrator_site.base.egress.errors import EgressDenied, EgressError, EgressFailed, ProxyFailed, ServiceFailed
from orchestrator_site.base.egress.guarded_connections import OutgoingRequest
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import HttpUrl, InvalidUrl, basic_credentials, parse

__all__ = [
    "Answer",
    "EgressDenied",
    "EgressError",
    "EgressFailed",
    "ProxyFailed",
    "ServiceFailed",
    "chunks",
    "open",
    "origin_of",
    "redact",
]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Headers that follow from the URL and the body.
_SET_HERE: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"})
_DEFAULTS: Final = {"Accept-Encoding": b"identity", "User-Agent": b"Orchestrator/1"}
_MAX_SHOWN_CHARACTERS: Final = 200


class _ExchangeFailed(Exception):
    """Sending or reading failed: the cause says why. Other errors in the block of `open` are the caller's."""


class SizedChunks(Protocol):
    """A body to stream: the chunks have exactly `len()` bytes in all, and are sent as they are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes | memoryview]: ...


@contextmanager
def open(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | SizedChunks | None = None,
    connect_timeout: float,
    read_timeout: float,
    total_timeout: float | None = None,
    on_socket: Callable[[socket.socket], object] | None = None,
    intervals: EgressIntervals = EgressIntervals(),
) -> Iterator[Answer]:
    """Send a request; yield the answer, whatever its status, with its body unread (see `chunks`).

    Times are in seconds: `connect_timeout` for name resolution, connection and TLS handshake each, `read_timeout` without
    a byte in either direction, `total_timeout` from here to the end of the `with` block. `on_socket` gets a socket for each
    connection that is made; `shutdown` on it, from any thread, ends a blocked call. The URL's path and query are sent as
    `http_urls.parse` reads them; userinfo becomes Basic authentication.

    Raise `EgressDenied` or `EgressFailed`, also inside the block while the body is read.
    """
    parsed = _parse(url)
    head = _head(method, parsed, headers or {}, body)
    parts = (body,) if isinstance(body, bytes) else body or ()
    request = OutgoingRequest(parsed, connect_timeout, read_timeout, on_socket, intervals)
    with ExitStack() as stack:
        stack.callback(request.close)
        if total_timeout is not None:
            stack.enter_context(watchdog.limit(total_timeout, request.expire))
        stack.enter_context(_translating_errors(request))
        yield stack.enter_context(_exchange(method, parsed, head, parts, request))


@contextmanager
def _exchange(
    method: str, url: HttpUrl, head: bytes, body: Iterable[bytes | memoryview], request: OutgoingRequest
) -> Iterator[Answer]:
    """Send the request on a new or idle connection; keep it if the whole answer was read."""
    pool = _pool()
    connection = pool.acquire(url, request.intervals.reuse)
    try:
        try:
            response = connection.exchange(request, method, head, body)
        except (OSError, HTTPException) as error:
            raise _ExchangeFailed from error
        with response:
            yield response
            is_reusable = connection.is_reusable_after(response)
    except BaseException:
        connection.close()
        raise
    if is_reusable:
        request.close()  # from here on, its deadline would end another request
        pool.release(connection)
    else:
        connection.close()


def chunks(response: Answer, size: int = 65536) -> Iterator[bytes]:
    """Yield the body as the server sent it, at most `size` bytes at a time. A content encoding is not decoded."""
    try:
        while data := response.read1(size):
            yield data
    except (OSError, HTTPException) as error:
        raise _ExchangeFailed from error


@contextmanager
def _translating_errors(request: OutgoingRequest) -> Iterator[None]:
    """Turn errors of the exchange into `EgressFailed`, and so an answer that the watchdog has ended."""
    try:
        yield
    except _ExchangeFailed as failed:
        raise _failure(request, failed.__cause__) from failed.__cause__
    if request.expired:
        raise _failure(request, None)


def _failure(request: OutgoingRequest, reason: BaseException | None) -> EgressFailed:
    if request.expired or reason is None:
        return EgressFailed(f"{request.host} did not answer in time", timed_out=True)
    if isinstance(reason, TimeoutError):
        return EgressFailed(f"{request.host} sent nothing for {request.read_timeout:g} s", timed_out=True)
    return EgressFailed(f"the connection to {request.host} failed: {_described(reason)}")


def _described(reason: BaseException) -> str:
    """Return what went wrong, without anything that the server sent: what does not speak HTTP is not the client's to read."""
    if isinstance(reason, IncompleteRead):
        return "it ended in the body of the response"
    if isinstance(reason, HTTPException) and type(reason) not in (HTTPException, RemoteDisconnected):
        return "its answer is not valid HTTP"
    text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
    return text.strip()[:_MAX_SHOWN_CHARACTERS]


@cache
def _pool() -> ConnectionPool:
    return ConnectionPool()


def _head(method: str, url: HttpUrl, headers: Mapping[str, str], body: bytes | SizedChunks | None) -> bytes:
    """Return the request line and the headers. `headers` replace those that follow from the URL, whatever their case."""
    sent = dict(_DEFAULTS)
    if url.userinfo is not None:
        sent["Authorization"] = basic_credentials(url.userinfo)
    given = {name.lower() for name in headers}
    sent = {name: value for name, value in sent.items() if name.lower() not in given} | _encode_headers(headers)
    if body is not None:
        sent["Content-Length"] = b"%d" % len(body)
    lines = [f"{method} {url.target} HTTP/1.1\r\nHost: {url.authority}\r\n".encode("ascii")]
    lines += [b"%b: %b\r\n" % (name.encode("ascii"), value) for name, value in sent.items()]
    return b"".join(lines) + b"\r\n"


def _encode_headers(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Return the headers with their values in Latin-1.

    Raise `EgressDenied` for a value outside Latin-1 or with control characters, and for headers that frame the request.
    """
    sent: dict[str, bytes] = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise EgressDenied(f"{name[:_MAX_SHOWN_CHARACTERS]!r} is not a valid header name")
        if name.lower() in _SET_HERE:
            raise EgressDenied(f"the header {name} is set by the service and cannot be overridden")
        if _CONTROL.search(value):
            raise EgressDenied(f"the value of the header {name} contains a control character")
        try:
            sent[name] = value.strip(" \t").encode("latin-1")
        except UnicodeEncodeError as error:
            raise EgressDenied(f"the value of the header {name} contains a character outside Latin-1") from error
    return sent


def _parse(url: str) -> HttpUrl:
    try:
        return parse(url)
    except InvalidUrl as error:
        raise EgressDenied(f"{redact(url)} cannot be requested: {error}") from error


def origin_of(url: str) -> str:
    """Return scheme, host and port in one spelling: `https://example.com:443`. Raise `EgressDenied` for other URLs."""
    return _parse(url).origin


def redact(url: str | None) -> str:
    """Return the URL without userinfo, query and fragment, for messages and logs. None: it could not be decrypted."""
    if url is None:
        return "a URL that cannot be decrypted with ENCRYPTION_KEYS"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
