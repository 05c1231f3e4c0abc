"""urllib3 connections that reach only checked addresses, and only for as long as their request may take.

They resolve the name, check its addresses and connect in one step, so no second look at the URL or at DNS can lead elsewhere.
Requests are sent through `http_client`.
"""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any, Final

import certifi
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from orchestrator_site.base.egress.allowed_addresses import is_allowed
from orchestrator_site.base.egress.bounded_responses import BoundedResponse
from orchestrator_site.base.egress.deadlines import watchdog
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import HttpUrl

_MAX_POOLS: Final = 32
MAX_IDLE_CONNECTIONS: Final = 8  # per origin: the default of DELIVERIES_PER_HOST


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


current_request: ContextVar[OutgoingRequest] = ContextVar("current_request")


def check_address(host: str, address: str) -> None:
    """Raise `EgressDenied` if a URL with this `host` may not reach this `address`."""
    configuration = settings.CONFIGURATION
    if not is_allowed(ip_address(address), host, configuration.egress_networks, configuration.egress_hosts):
        raise EgressDenied(f"{host} resolves to {address}, a non-public address that is not in EGRESS_ALLOW")


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
            check_address(host, address[0])
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


class _GuardedConnection(HTTPConnection):
    """The common base of plain and TLS connections."""

    response_class = BoundedResponse
    _last_request = float("-inf")

    def _new_conn(self) -> socket.socket:
        request = current_request.get()
        connection = connect(self._dns_host, self.port, request.connect_timeout)
        try:
            request.attach(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self) -> None:
        """Connect, TLS included, within the connect time-out; from then on the read time-out applies."""
        request = current_request.get()
        with watchdog.limit(request.connect_timeout, request.expire):  # a server can drip bytes of a handshake, too
            super().connect()
        self.sock.settimeout(request.read_timeout)

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:  # noqa: ARG002 - replaced by the target
        """Send the request with the target of the `OutgoingRequest`: requests and urllib3 normalize URLs."""
        request = current_request.get()
        if self.sock is not None:
            check_address(self.host, self.sock.getpeername()[0])  # the rules may have changed since it was connected
            request.attach(self.sock)
        self.timeout = request.read_timeout  # urllib3 would send with the connect time-out
        self._last_request = time.monotonic()
        super().request(method, request.target, *args, **options)

    @property
    def is_connected(self) -> bool:
        idle = time.monotonic() - self._last_request
        return super().is_connected and idle < current_request.get().intervals.reuse


class _GuardedHTTPConnection(_GuardedConnection):
    pass


class _GuardedHTTPSConnection(_GuardedConnection, HTTPSConnection):
    pass


class _GuardedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _GuardedHTTPConnection


class _GuardedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPSConnection


class GuardedAdapter(HTTPAdapter):
    """The transport of requests over guarded connections. Set `current_request` before each request.

    Raises `EgressFailed` if CA_BUNDLE can no longer be read.
    """

    def __init__(self) -> None:
        self._tls_context = ssl.create_default_context(cafile=certifi.where())
        if bundle := settings.CONFIGURATION.ca_bundle:
            try:
                self._tls_context.load_verify_locations(bundle)
            except OSError as error:
                raise EgressFailed(f"CA_BUNDLE cannot be read: {error.strerror}") from error
        super().__init__(pool_connections=_MAX_POOLS, pool_maxsize=MAX_IDLE_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls_context, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _GuardedHTTPPool, "https": _GuardedHTTPSPool}

    def cert_verify(self, *args: Any) -> None:
        """Do nothing: the shared context verifies, and requests would read the certificates again for every connection."""
