"""HTTP connections that reach only checked addresses, and only for as long as their request may take.

They resolve the name, check its addresses and connect in one step, so no second look at the URL or at DNS can lead elsewhere.
Requests are sent through `http_client`. With requests and urllib3, a callback took 0.50 ms of CPU instead of 0.23 ms.
"""

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from django.conf import settings

from orchestrator_site.base.egress.bounded_responses import BoundedResponse
from orchestrator_site.base.egress.deadlines import watchdog
from orchestrator_site.base.egress.errors import EgressDenied, EgressFailed
from orchestrator_site.base.egress.host_checks import check_address, check_new_address, resolve
from orchestrator_site.base.egress.proxy_tunnels import connect_to_proxy, open_connection, open_tunnel
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import HttpUrl


class SocketHandle(socket.socket):
    """A second descriptor of a connection, with which another thread can end it however the first is wrapped or closed.

    The lock keeps a late `shutdown` from hitting an unrelated socket that got the same descriptor number.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.was_shut_down = False
        self._lock = threading.Lock()
        super().__init__(connection.family, connection.type, connection.proto, fileno=os.dup(connection.fileno()))

    def shutdown(self, how: int) -> None:
        self.was_shut_down = True
        with self._lock:
            super().shutdown(how)

    def close(self) -> None:
        with self._lock:
            super().close()


class OutgoingRequest:
    """One request: its URL, its time-outs in seconds and its connection."""

    def __init__(
        self,
        url: HttpUrl,
        connect_timeout: float,
        read_timeout: float,
        on_socket: Callable[[socket.socket], object] | None,
        intervals: EgressIntervals = EgressIntervals(),
    ) -> None:
        self.host = url.host
        self.target = url.target
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self.intervals = intervals
        self.expired = False
        self._on_socket = on_socket
        self._lock = threading.Lock()
        self._handle: SocketHandle | None = None

    def attach(self, connection: socket.socket) -> None:
        """Let `expire` end this connection from now on. Raise `EgressFailed` if time is up already."""
        handle = SocketHandle(connection)
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = handle
        if self.expired:  # checked after the handle is set; `expire` sets it before it reads the handle: one sees the other
            raise EgressFailed(f"{self.host} did not answer in time", timed_out=True)
        if self._on_socket is not None:
            self._on_socket(handle)

    @property
    def was_ended(self) -> bool:
        """Return whether its connection was ended on this side, by `expire` or through the socket that `on_socket` got."""
        return self._handle is not None and self._handle.was_shut_down

    def expire(self) -> None:
        """End the connection because time is up. Called by the watchdog's thread."""
        self.expired = True
        with self._lock:
            if self._handle is not None:
                shut_down(self._handle)

    def close(self) -> None:
        with self._lock:
            if self._handle is not None:
                self._handle.close()


def shut_down(connection: socket.socket) -> None:
    """End all reading and writing on a connection; do nothing if it has ended."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class Route(NamedTuple):
    """A new connection, and the address that it leads to."""

    connection: socket.socket
    address: str


def connect(request: OutgoingRequest, port: int) -> Route:
    """Connect to the first allowed address of a request's host that answers; all attempts share its connect time-out.

    With EGRESS_PROXY, the proxy connects to that address.

    Raise `EgressDenied` if no address is allowed, `EgressFailed` if none answers.
    """
    host, timeout = request.host, request.connect_timeout
    deadline = time.monotonic() + timeout
    denied: EgressDenied | None = None
    failed: EgressFailed | None = None
    for family, address in resolve(host, port, timeout):
        try:
            check_new_address(host, address[0], deadline - time.monotonic())
        except EgressDenied as error:
            denied = denied or error
            continue
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        try:
            return Route(_connect_to(request, family, address, remaining), address[0])
        except EgressFailed as error:
            failed = error
        except OSError as error:
            timed_out = isinstance(error, TimeoutError)
            reason = f"timed out after {timeout:g} s" if timed_out else (error.strerror or str(error)).lower()
            failed = EgressFailed(f"cannot connect to {host} port {port}: {reason}", timed_out=timed_out)
    raise failed or denied or EgressFailed(f"cannot connect to {host} port {port}: timed out after {timeout:g} s", timed_out=True)


def _connect_to(request: OutgoingRequest, family: int, address: Any, timeout: float) -> socket.socket:
    """Connect to an address, or let the proxy do it. `request` can end the connection from then on."""
    proxy = settings.CONFIGURATION.egress_proxy
    connection = open_connection(family, address, timeout) if proxy is None else connect_to_proxy(proxy, timeout)
    try:
        request.attach(connection)
        if proxy is not None:
            open_tunnel(connection, proxy, request.host, address)
    except BaseException as error:
        connection.close()
        if request.expired:
            raise EgressFailed(f"{request.host} did not answer in time", timed_out=True) from error
        raise
    return connection


class GuardedConnection:
    """A connection to one origin, for one request after the other."""

    def __init__(self, url: HttpUrl, tls: ssl.SSLContext) -> None:
        """Connect at the first request, with `tls` if the URL begins with https."""
        self.origin = url.root
        self._host, self._port = url.host, url.port
        self._tls = tls if url.scheme == "https" else None
        self._socket: socket.socket | None = None
        self._address = ""  # that it leads to
        self._used_at = 0.0  # on the monotonic clock
        self._is_reusable = False  # whether all requests were sent as a whole

    def exchange(self, request: OutgoingRequest, method: str, head: bytes, body: Iterable[bytes | memoryview]) -> BoundedResponse:
        """Send a request; return its answer, with its body unread. Raise `EgressError`, `OSError` or `HTTPException`.

        A GET whose idle connection ends without an answer is sent again on a new one: a server may close an idle connection
        while a request is on its way (RFC 9112, 9.3.1).
        """
        if self._socket is not None:
            check_address(self._host, self._address)  # the rules may have changed since it was connected
            request.attach(self._socket)
            try:
                return self._exchange(self._socket, request, method, head, body)
            except ConnectionError:
                if method != "GET" or request.was_ended:
                    raise
            self._socket.close()
        self._socket = self._connect(request)
        return self._exchange(self._socket, request, method, head, body)

    def _exchange(
        self, connection: socket.socket, request: OutgoingRequest, method: str, head: bytes, body: Iterable[bytes | memoryview]
    ) -> BoundedResponse:
        """Send a request and read the head of its answer. The first part of the body is sent together with the head."""
        connection.settimeout(request.read_timeout)
        self._used_at = time.monotonic()
        self._is_reusable = False
        try:
            for part in with_head(head, body):
                connection.sendall(part)
            self._is_reusable = True
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server may answer and hang up before it has received everything
        response = BoundedResponse(connection, method=method)
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        return response

    def is_reusable_after(self, response: BoundedResponse) -> bool:
        """Return True if the answer was read to its end and the server keeps the connection open."""
        return self._is_reusable and response.isclosed() and not response.will_close

    def is_alive(self, reuse: float) -> bool:
        """Return True unless it was idle for more than `reuse` seconds, or the server has closed it or sent anything."""
        if self._socket is None or time.monotonic() - self._used_at >= reuse:
            return False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _connect(self, request: OutgoingRequest) -> socket.socket:
        """Connect, TLS included, within the connect time-out."""
        with watchdog.limit(request.connect_timeout, request.expire):  # a server can drip bytes of a handshake, too
            connection, self._address = connect(request, self._port)
            try:
                if self._tls is None:
                    return connection
                return self._tls.wrap_socket(connection, server_hostname=self._host.rstrip("."))
            except BaseException:
                connection.close()
                raise


def with_head(head: bytes, body: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the parts of a request, of which the first contains its head: one system call less, and one packet less."""
    for part in body:
        yield head + part if head else part
        head = b""
    if head:
        yield head
