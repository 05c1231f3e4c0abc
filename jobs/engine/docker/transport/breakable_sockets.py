"""Connections to an engine that another thread can end at any moment: while they connect, send, or wait for an answer.

urllib3 gives a caller the connection only with the headers of the answer, and an engine may take minutes to send these. So
these connections tell the call that uses them of their socket as soon as there is one.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError


class EngineCall:
    """One request with its answer. `end` may be called from any thread, at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ended = False

    @contextmanager
    def current(self) -> Iterator[None]:
        """While inside, connections that this thread uses tell this call."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def uses(self, used: socket.socket) -> None:
        """Note the socket. Raises `ConnectionAbortedError` if the call has been ended."""
        with self._lock:
            self._socket = used
            if self._ended:
                raise ConnectionAbortedError("the call was ended")

    def let_go(self) -> None:
        """Forget the socket: from now on the next call may use it."""
        with self._lock:
            self._socket = None

    def end(self) -> None:
        """Fail what blocks on the socket now, and whatever the call does next."""
        with self._lock:
            self._ended = True
            if self._socket is not None:
                with suppress(OSError):  # not connected yet, or closed
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # SSLSocket's own would go on in plain text


_current: ContextVar[EngineCall | None] = ContextVar("the call to the engine that this thread makes", default=None)


class _Connection(HTTPConnection):
    call: EngineCall | None = None

    def connect(self) -> None:
        super().connect()
        self._tell(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # kept open by an earlier call
            self._tell(self.sock)
        super().request(*args, **kwargs)

    def _new_conn(self) -> socket.socket:
        """Connect with a socket that the call knows already. Raises urllib3's errors and `OSError`."""
        failure: OSError = ConnectionError("the host has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM):
            made = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    made.setsockopt(*option)
                made.settimeout(self.timeout)
                self._tell(made)
                made.connect(address)
            except OSError as error:
                made.close()
                failure = error
            else:
                return made
        unable = ConnectTimeoutError if isinstance(failure, TimeoutError) else NewConnectionError
        raise unable(self, f"cannot connect to {self.host}: {failure}") from failure

    def _tell(self, used: Any) -> None:
        self.call = _current.get()
        if self.call is not None:
            self.call.uses(used)


class _TlsConnection(_Connection, HTTPSConnection):
    _handle: socket.socket | None = None

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _new_conn(self) -> socket.socket:
        """During the handshake only the SSL library has the socket: the call gets a second handle of it."""
        made = super()._new_conn()
        try:
            self._handle = made.dup()
            self._tell(self._handle)
        except OSError:
            made.close()
            raise
        return made


class _UnixConnection(_Connection, UnixHTTPConnection):
    """The same over a unix socket, where connecting does not block."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.call is not None:
            conn.call.let_go()
            conn.call = None
        super()._put_conn(conn)


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _UnixPool(_Pool, UnixHTTPConnectionPool):
    def _new_conn(self) -> _UnixConnection:  # type: ignore[override] # as docker-py's
        return _UnixConnection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]


class TcpAdapter(HTTPAdapter):
    """Keeps connections to a host open."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class UnixAdapter(UnixHTTPAdapter):
    """Keeps connections to a unix socket open, in a pool for each path, as docker-py's does."""

    def get_connection(self, url: str | bytes, proxies: object = None) -> _UnixPool:  # noqa: ARG002 - as requests calls it
        with self.pools.lock:
            pool: _UnixPool | None = self.pools.get(url)
            if pool is None:
                pool = self.pools[url] = _UnixPool(str(url), self.socket_path, self.timeout, maxsize=self.max_pool_size)
        return pool
