"""HTTP connections that reach only checked addresses, and only for as long as their request may take.

They resolve the name, check its addresses and connect in one step, so no second look at the URL or at DNS can lead elsewhere.
Requests are sent through `http_client`. With requests and urllib3, a callback took 0.50 ms of CPU instead of 0.23 ms.
"""

import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from django.conf import settings

from orchestrator_site.base.egress.allowed_addresses import is_allowed, is_listed, targets
from orchestrator_site.base.egress.bounded_responses import BoundedResponse
from orchestrator_site.base.egress.deadlines import watchdog
from orchestrator_site.base.egress.own_addresses import is_own
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import HttpUrl

logger = logging.getLogger(__name__)


class EgressError(Exception):
    """Base of the errors of outgoing requests. `str(error)` is one sentence without userinfo, query or header values."""


class EgressDenied(EgressError):
    """The request itself is at fault: its host may not be reached, or it is invalid."""


class EgressFailed(EgressError):
    """The server could not be reached, violated HTTP or TLS, or was too slow."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class SocketHandle(socket.socket):
    """A second descriptor of a connection, with which another thread can end it however the first is wrapped or closed.

    The lock keeps a late `shutdown` from hitting an unrelated socket that got the same descriptor number.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._lock = threading.Lock()
        super().__init__(connection.family, connection.type, connection.proto, fileno=os.dup(connection.fileno()))

    def shutdown(self, how: int) -> None:
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


def check_address(host: str, address: str) -> None:
    """Raise `EgressDenied` if a URL with this `host` may not reach this `address`, which is only named in the log.

    A client must not learn the addresses of internal hosts.
    """
    configuration = settings.CONFIGURATION
    if not is_allowed(ip_address(address), host, configuration.egress_networks, configuration.egress_hosts):
        logger.info("%s is not reached: it resolves to %s", host, address)
        raise EgressDenied(f"{host} resolves to a non-public address that is not in EGRESS_ALLOW")


def check_new_address(host: str, address: str, timeout: float) -> None:
    """Raise `EgressDenied` like `check_address`, and also if the address is the service's own and not in EGRESS_ALLOW."""
    check_address(host, address)
    networks, hosts = settings.CONFIGURATION.egress_networks, settings.CONFIGURATION.egress_hosts
    for target in targets(ip_address(address)):
        if not is_listed(target, host, networks, hosts) and is_own(target, host, timeout):
            logger.info("%s is not reached: it resolves to %s, which is the service's own", host, address)
            raise EgressDenied(f"{host} resolves to an address of this service that is not in EGRESS_ALLOW")


def resolve(host: str, port: int, timeout: float) -> list[tuple[int, Any]]:
    """Return family and socket address of every address of `host`, the system's preferred first. Raise `EgressFailed`.

    The system's resolver runs in a thread, because it has no time-out and cannot be interrupted.
    """
    results: list[Any] = []

    def look_up() -> None:
        try:
            results.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            results.append(error)

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(timeout)
    if not results:
        raise EgressFailed(f"{host} cannot be resolved within {timeout:g} s", timed_out=True)
    found = results[0]
    if isinstance(found, Exception):
        reason = found.strerror if isinstance(found, OSError) else "invalid host name"
        raise EgressFailed(f"{host} cannot be resolved: {reason}") from found
    return [(family, address) for family, _, _, _, address in found]


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """Connect to the first allowed address of `host` that answers; all attempts share `timeout` seconds.

    Raise `EgressDenied` if no address is allowed, `EgressFailed` if none answers.
    """
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
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(remaining)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(address)
        except OSError as error:
            connection.close()
            timed_out = isinstance(error, TimeoutError)
            reason = f"timed out after {timeout:g} s" if timed_out else (error.strerror or str(error)).lower()
            failed = EgressFailed(f"cannot connect to {host} port {port}: {reason}", timed_out=timed_out)
        else:
            return connection
    raise failed or denied or EgressFailed(f"cannot connect to {host} port {port}: timed out after {timeout:g} s", timed_out=True)


class GuardedConnection:
    """A connection to one origin, for one request after the other."""

    def __init__(self, url: HttpUrl, tls: ssl.SSLContext) -> None:
        """Connect at the first request, with `tls` if the URL begins with https."""
        self.origin = url.root
        self._host, self._port = url.host, url.port
        self._tls = tls if url.scheme == "https" else None
        self._socket: socket.socket | None = None
        self._used_at = 0.0  # on the monotonic clock
        self._is_reusable = False  # whether all requests were sent as a whole

    def exchange(self, request: OutgoingRequest, method: str, head: bytes, body: Iterable[bytes | memoryview]) -> BoundedResponse:
        """Send a request; return its answer, with its body unread. Raise `EgressError`, `OSError` or `HTTPException`.

        The first part of the body is sent together with the head.
        """
        if self._socket is None:
            self._socket = self._connect(request)
        else:
            check_address(self._host, self._socket.getpeername()[0])  # the rules may have changed since it was connected
            request.attach(self._socket)
        self._socket.settimeout(request.read_timeout)
        self._used_at = time.monotonic()
        self._is_reusable = False
        try:
            for part in with_head(head, body):
                self._socket.sendall(part)
            self._is_reusable = True
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server may answer and hang up before it has received everything
        response = BoundedResponse(self._socket, method=method)
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
            connection = connect(self._host, self._port, request.connect_timeout)
            try:
                request.attach(connection)
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
