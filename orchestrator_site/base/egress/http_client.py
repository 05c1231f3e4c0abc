"""The only door for outgoing HTTP: callbacks, downloads and uploads all leave through `open`.

It reaches public addresses and what EGRESS_ALLOW names, connects to the very address that it checked, follows
no redirect, keeps no cookie, asks no proxy and no `.netrc`, and ends at the deadline whatever the peer does.
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

from orchestrator_site.base.egress.guarded_connections import (
    Call,
    CheckedAdapter,
    EgressDenied,
    EgressError,
    EgressFailed,
    current_call,
    watchdog,
)
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import HttpUrl, InvalidUrl, parse

__all__ = ["EgressDenied", "EgressError", "EgressFailed", "chunks", "open", "origin_of", "redact"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# How a request is framed, and whose it is, follows from the URL and the body alone.
_OURS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"})
_SHOWN_CHARACTERS: Final = 200


class SizedReader(Protocol):
    """A body that is streamed: exactly `len()` bytes come out of `read`."""

    def __len__(self) -> int: ...

    def read(self, size: int, /) -> bytes: ...


@contextmanager
def open(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | SizedReader | None = None,
    connect_timeout: float,
    read_timeout: float,
    total_timeout: float | None = None,
    on_socket: Callable[[socket.socket], object] | None = None,
    intervals: EgressIntervals = EgressIntervals(),
) -> Iterator[requests.Response]:
    """Send a request; yield the answer, whatever its status, with its body unread (see `chunks`).

    Times are in seconds: `connect_timeout` for name, connection and TLS handshake each, `read_timeout` without a byte
    in either direction, `total_timeout` from here to the end of the `with` block. `on_socket` gets a socket for the
    connection, more than once where several are made; `shutdown` on it, from any thread, ends what blocks. The URL's path
    and query are sent as `http_urls.parse` reads them; userinfo becomes Basic authentication. Raises `EgressDenied` or
    `EgressFailed`, inside the block too while the body is read.
    """
    parsed = _parse(url)
    request = _prepare(method, parsed, headers or {}, body)
    call = Call(parsed, connect_timeout, read_timeout, on_socket, intervals)
    with ExitStack() as stack:
        stack.callback(call.close)
        if total_timeout is not None:
            stack.enter_context(watchdog.limit(total_timeout, call.expire))
        stack.enter_context(_translated(call))
        yield stack.enter_context(_send(request, call))


@contextmanager
def _send(request: requests.PreparedRequest, call: Call) -> Iterator[requests.Response]:
    """Without a `requests.Session`: that reads the body of a redirect to its end, however long."""
    token = current_call.set(call)
    try:
        response = _adapter().send(request, stream=True, timeout=(call.connect_timeout, call.read_timeout))
    finally:
        current_call.reset(token)
    try:
        yield response
    finally:
        response.close()


def chunks(response: requests.Response, size: int = 65536) -> Iterator[bytes]:
    """The bytes of the answer as the peer sent them, at most `size` at a time; what it compressed unasked stays so."""
    while data := response.raw.read1(size, decode_content=False):
        yield data


@contextmanager
def _translated(call: Call) -> Iterator[None]:
    """Turn what requests and urllib3 raise into `EgressFailed`; so too an answer whose end was only the watchdog's."""
    try:
        yield
    except EgressError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _failure(call, error) from error
    if call.expired:
        raise _failure(call, None)


def _failure(call: Call, error: Exception | None) -> EgressFailed:
    reason = _innermost(error) if error else None
    if call.expired or reason is None:
        return EgressFailed(f"{call.host} did not answer in time", timed_out=True)
    if isinstance(reason, TimeoutError | urllib3.exceptions.TimeoutError):
        return EgressFailed(f"{call.host} sent nothing for {call.read_timeout:g} s", timed_out=True)
    words = (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
    return EgressFailed(f"the connection to {call.host} failed: {_shown(words)}")


def _shown(words: str) -> str:
    """What may be the peer's own words (a status line that is none), fit for a sentence, a log and any database."""
    return "".join(character if character.isprintable() else "\ufffd" for character in words.strip()[:_SHOWN_CHARACTERS])


def _innermost(error: BaseException) -> BaseException:
    """What really happened: the outer errors' texts hold the URL with its query."""
    causes = [getattr(error, "reason", None), *error.args, error.__cause__]
    for cause in causes:
        if isinstance(cause, BaseException):
            return _innermost(cause)
    return error


@cache
def _adapter() -> CheckedAdapter:
    return CheckedAdapter()


def _prepare(method: str, url: HttpUrl, headers: Mapping[str, str], body: bytes | SizedReader | None) -> requests.PreparedRequest:
    """Build the request without `PreparedRequest.prepare`, which rewrites URLs. The target comes from the `Call`."""
    sent: CaseInsensitiveDict[Any] = CaseInsensitiveDict({"Accept-Encoding": "identity"})
    if url.userinfo is not None:
        user, _, password = url.userinfo.partition(":")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        sent["Authorization"] = f"Basic {b64encode(pair).decode()}"
    sent.update(_checked(headers))
    if body is not None:
        sent["Content-Length"] = str(len(body))
    request = requests.PreparedRequest()
    request.method, request.url, request.headers = method, url.root, sent
    request.body = body  # type: ignore[assignment]  # urllib3 sends what can be read piece by piece
    return request


def _checked(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Return the headers with their values in Latin-1.

    Raises `EgressDenied` for what Latin-1 cannot hold, could end a header early or would reframe the request.
    """
    sent: dict[str, bytes] = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise EgressDenied(f"{name[:_SHOWN_CHARACTERS]!r} is no name of a header")
        if name.lower() in _OURS:
            raise EgressDenied(f"the header {name} follows from the request and cannot be given")
        if _CONTROL.search(value):
            raise EgressDenied(f"the value of the header {name} holds a control character")
        try:
            sent[name] = value.strip(" \t").encode("latin-1")
        except UnicodeEncodeError as error:
            raise EgressDenied(f"the value of the header {name} holds a character outside Latin-1") from error
    return sent


def _parse(url: str) -> HttpUrl:
    try:
        return parse(url)
    except InvalidUrl as error:
        raise EgressDenied(f"{redact(url)} cannot be requested: {error}") from error


def origin_of(url: str) -> str:
    """Scheme, host and port in one spelling: `https://example.com:443`. Raises `EgressDenied` where it is no http(s) URL."""
    return _parse(url).origin


def redact(url: str) -> str:
    """The URL without userinfo, query and fragment, for messages and logs."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
