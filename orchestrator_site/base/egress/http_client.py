"""The HTTP client for all outgoing requests: callbacks, downloads and uploads.

It reaches public addresses and those of EGRESS_ALLOW only, connects to the very address it has checked, follows no redirects,
keeps no cookies, uses no proxy and no `.netrc`, and ends at the deadline whatever the server does.
"""

import re
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from orchestrator_site.base.egress.deadlines import watchdog
from orchestrator_site.base.egress.guarded_connections import (
    EgressDenied,
    EgressError,
    EgressFailed,
    GuardedAdapter,
    OutgoingRequest,
    current_request,
)
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import HttpUrl, InvalidUrl, parse

__all__ = ["EgressDenied", "EgressError", "EgressFailed", "chunks", "open", "origin_of", "redact"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Headers that follow from the URL and the body.
_SET_HERE: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"})
_MAX_SHOWN_CHARACTERS: Final = 200


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
) -> Iterator[requests.Response]:
    """Send a request; yield the answer, whatever its status, with its body unread (see `chunks`).

    Times are in seconds: `connect_timeout` for name resolution, connection and TLS handshake each, `read_timeout` without
    a byte in either direction, `total_timeout` from here to the end of the `with` block. `on_socket` gets a socket for each
    connection that is made; `shutdown` on it, from any thread, ends a blocked call. The URL's path and query are sent as
    `http_urls.parse` reads them; userinfo becomes Basic authentication.

    Raise `EgressDenied` or `EgressFailed`, also inside the block while the body is read.
    """
    parsed = _parse(url)
    prepared = _prepare(method, parsed, headers or {}, body)
    request = OutgoingRequest(parsed, connect_timeout, read_timeout, on_socket, intervals)
    with ExitStack() as stack:
        stack.callback(request.close)
        if total_timeout is not None:
            stack.enter_context(watchdog.limit(total_timeout, request.expire))
        stack.enter_context(_translating_errors(request))
        yield stack.enter_context(_send(prepared, request))


@contextmanager
def _send(prepared: requests.PreparedRequest, request: OutgoingRequest) -> Iterator[requests.Response]:
    """Send without a `requests.Session`, which would read the body of a redirect to its end, however long."""
    token = current_request.set(request)
    try:
        response = _adapter().send(prepared, stream=True, timeout=(request.connect_timeout, request.read_timeout))
    finally:
        current_request.reset(token)
    try:
        yield response
    finally:
        response.close()


def chunks(response: requests.Response, size: int = 65536) -> Iterator[bytes]:
    """Yield the body as the server sent it, at most `size` bytes at a time. A content encoding is not decoded."""
    while data := response.raw.read1(size, decode_content=False):
        yield data


@contextmanager
def _translating_errors(request: OutgoingRequest) -> Iterator[None]:
    """Turn errors of requests and urllib3 into `EgressFailed`, and so an answer that the watchdog has ended."""
    try:
        yield
    except EgressError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _failure(request, error) from error
    if request.expired:
        raise _failure(request, None)


def _failure(request: OutgoingRequest, error: Exception | None) -> EgressFailed:
    reason = _innermost(error) if error else None
    if request.expired or reason is None:
        return EgressFailed(f"{request.host} did not answer in time", timed_out=True)
    if isinstance(reason, TimeoutError | urllib3.exceptions.TimeoutError):
        return EgressFailed(f"{request.host} sent nothing for {request.read_timeout:g} s", timed_out=True)
    text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
    return EgressFailed(f"the connection to {request.host} failed: {_printable(text)}")


def _printable(text: str) -> str:
    """Shorten `text` and replace unprintable characters: it may quote the server, an invalid status line for example."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text.strip()[:_MAX_SHOWN_CHARACTERS])


def _innermost(error: BaseException) -> BaseException:
    """Return the root cause: the texts of outer errors contain the URL with its query."""
    causes = [getattr(error, "reason", None), *error.args, error.__cause__]
    for cause in causes:
        if isinstance(cause, BaseException):
            return _innermost(cause)
    return error


@cache
def _adapter() -> GuardedAdapter:
    return GuardedAdapter()


def _prepare(method: str, url: HttpUrl, headers: Mapping[str, str], body: bytes | SizedChunks | None) -> requests.PreparedRequest:
    """Build the request without `PreparedRequest.prepare`, which rewrites URLs. The `OutgoingRequest` has the target."""
    sent: CaseInsensitiveDict[Any] = CaseInsensitiveDict({"Accept-Encoding": "identity"})
    if url.userinfo is not None:
        user, _, password = url.userinfo.partition(":")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        sent["Authorization"] = f"Basic {b64encode(pair).decode()}"
    sent.update(_encode_headers(headers))
    if body is not None:
        sent["Content-Length"] = str(len(body))
    request = requests.PreparedRequest()
    request.method, request.url, request.headers = method, url.root, sent
    request.body = body  # type: ignore[assignment]  # urllib3 sends what can be iterated over chunk by chunk
    return request


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


def redact(url: str) -> str:
    """Return the URL without userinfo, query and fragment, for messages and logs."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
