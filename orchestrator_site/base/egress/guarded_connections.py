"""Connections that reach only addresses that were checked, for as long as their request may take.

`http_client` is the door; this is what stands behind it: urllib3's connections and pools, with the resolving,
checking and connecting done here, so that no second look at the URL or at DNS can lead elsewhere.
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
from orchestrator_site.base.egress.deadlines import Watchdog
from orchestrator_site.base.intervals import EgressIntervals
from orchestrator_site.base.values.http_urls import HttpUrl

watchdog: Final = Watchdog()
_POOLS: Final = 32
_IDLE_CONNECTIONS: Final = 8  # per origin: as many as DELIVERIES_PER_HOST has at once by default


class EgressError(Exception):
    """Base of both. `str(error)` is one sentence without userinfo, query or header values."""


class EgressDenied(EgressError):
    """The request itself is at fault: what it names may not be reached, or it cannot be sent at all."""


class EgressFailed(EgressError):
    """The other end could not be reached, or did not keep to HTTP, TLS or the time."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Handle(socket.socket):
    """A second descriptor of a connection, to end it from another thread whoever uses (and wraps, and closes) the first.

    The lock keeps a late `shutdown` from a stranger's socket that got the same number.
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


class Call:
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
        self._handle: Handle | None = None

    def attach(self, connection: socket.socket) -> None:
        """From now on `expire` ends this connection. Raises `EgressFailed` where time is up already."""
        handle = Handle(connection)
        with self._lock:
            if self._handle is not None:
                self._handle.close()
            self._handle = handle
        if self.expired:  # looked at after the handle is in place, set before it is taken: one of the two sees the other
            raise EgressFailed(f"{self.host} did not answer in time", timed_out=True)
        if self._on_socket is not None:
            self._on_socket(handle)

    def expire(self) -> None:
        """Time is up: end whatever blocks. Called by the watchdog's thread."""
        self.expired = True
        with self._lock:
            if self._handle is not None:
                shut_down(self._handle)

    def close(self) -> None:
        with self._lock:
            if self._handle is not None:
                self._handle.close()


def shut_down(connection: socket.socket) -> None:
    """End all reading and writing on it; no error where it has ended."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


current_call: ContextVar[Call] = ContextVar("current_call")


def check(host: str, address: str) -> None:
    """Raise `EgressDenied` where a URL with this host may not reach this address."""
    configuration = settings.CONFIGURATION
    if not is_allowed(ip_address(address), host, configuration.egress_networks, configuration.egress_hosts):
        raise EgressDenied(f"{host} is at {address}, which is no public address and not in EGRESS_ALLOW")


def resolve(host: str, port: int, timeout: float) -> list[tuple[int, Any]]:
    """Family and socket address of every address of `host`, the system's preferred first.

    In a thread, because the system's resolver takes no time-out and cannot be interrupted.
    """
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(timeout)
    if not answer:
        raise EgressFailed(f"the name {host} could not be resolved in {timeout:g} s", timed_out=True)
    found = answer[0]
    if isinstance(found, Exception):
        reason = found.strerror if isinstance(found, OSError) else "it is no host name"
        raise EgressFailed(f"the name {host} could not be resolved: {reason}") from found
    return [(family, address) for family, _, _, _, address in found]


def dial(host: str, port: int, timeout: float) -> socket.socket:
    """A connection to the first allowed address of `host` that answers, all of them within `timeout` seconds.

    Raises `EgressDenied` where none is allowed, `EgressFailed` where none answers.
    """
    deadline = time.monotonic() + timeout
    denied: EgressDenied | None = None
    failed: EgressFailed | None = None
    for family, address in resolve(host, port, timeout):
        try:
            check(host, address[0])
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
            reason = f"not within {timeout:g} s" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
            failed = EgressFailed(f"no connection to {host} port {port}: {reason}", timed_out=isinstance(error, TimeoutError))
        else:
            return connection
    raise failed or denied or EgressFailed(f"no connection to {host} port {port} within {timeout:g} s", timed_out=True)


class _Checked(HTTPConnection):
    """What both kinds of connection do otherwise than urllib3's."""

    response_class = BoundedResponse
    _last_request = float("-inf")

    def _new_conn(self) -> socket.socket:
        call = current_call.get()
        connection = dial(self._dns_host, self.port, call.connect_timeout)
        try:
            call.attach(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self) -> None:
        """Connect, with TLS where it is spoken, within the connect time-out; from then on the read time-out holds."""
        call = current_call.get()
        with watchdog.limit(call.connect_timeout, call.expire):  # a handshake can be dripped like an answer
            super().connect()
        self.sock.settimeout(call.read_timeout)

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:  # noqa: ARG002 - see below
        """Send the request with the call's own target: requests and urllib3 normalise the URL that they are given."""
        call = current_call.get()
        if self.sock is not None:
            check(self.host, self.sock.getpeername()[0])  # it was allowed when it was made; the rules may be others now
            call.attach(self.sock)
        self.timeout = call.read_timeout  # urllib3 would send with the connect time-out
        self._last_request = time.monotonic()
        super().request(method, call.target, *args, **options)

    @property
    def is_connected(self) -> bool:
        idle = time.monotonic() - self._last_request
        return super().is_connected and idle < current_call.get().intervals.reuse


class _CheckedHTTPConnection(_Checked):
    pass


class _CheckedHTTPSConnection(_Checked, HTTPSConnection):
    pass


class _CheckedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _CheckedHTTPConnection


class _CheckedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedHTTPSConnection


class CheckedAdapter(HTTPAdapter):
    """requests' transport over these connections. Give each request its `current_call`.

    Raises `EgressFailed` where CA_BUNDLE can no longer be read.
    """

    def __init__(self) -> None:
        self._trust = ssl.create_default_context(cafile=certifi.where())
        if bundle := settings.CONFIGURATION.ca_bundle:
            try:
                self._trust.load_verify_locations(bundle)
            except OSError as error:
                raise EgressFailed(f"CA_BUNDLE cannot be read: {error.strerror}") from error
        super().__init__(pool_connections=_POOLS, pool_maxsize=_IDLE_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._trust, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _CheckedHTTPPool, "https": _CheckedHTTPSPool}

    def cert_verify(self, *args: Any) -> None:
        """The shared context verifies; requests would read the certificates again for every connection."""
