"""Connections that another thread can end at any moment: while they connect, send, or wait for an answer.

urllib3 hands out a connection only with the headers of the answer, and an engine may take minutes to send those. So these
connections report their socket to the call that uses them as soon as there is one.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs


class EngineCall:
    """One request and its answer. `end` may be called from any thread, at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ended = False

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the call to which the connections of this thread report their sockets."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def use(self, used: socket.socket) -> None:
        """Record the socket in use. Raise `ConnectionAbortedError` if the call has been ended."""
        with self._lock:
            self._socket = used
            if self._ended:
                raise ConnectionAbortedError("the call was ended")

    def release(self) -> None:
        """Forget the socket, which another call may use from now on."""
        with self._lock:
            self._socket = None

    def end(self) -> None:
        """Make whatever blocks on the socket fail, and every later step of the call too."""
        with self._lock:
            self._ended = True
            if self._socket is not None:
                with suppress(OSError):  # not connected yet, or closed
                    # Not SSLSocket.shutdown, after which the connection would continue in plain text.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_current: ContextVar[EngineCall | None] = ContextVar("the engine call of this thread", default=None)


class BreakableConnection(HTTPConnection):
    call: EngineCall | None = None

    def connect(self) -> None:
        super().connect()
        self._report(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # kept open by an earlier call
            self._report(self.sock)
        super().request(*args, **kwargs)

    def _new_conn(self) -> socket.socket:
        """Connect a socket that the call already knows. Raise urllib3's errors and `OSError`."""
        failure: OSError = ConnectionError("the host has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM):
            made = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    made.setsockopt(*option)
                made.settimeout(self.timeout)
                self._report(made)
                made.connect(address)
            except OSError as error:
                made.close()
                failure = error
            else:
                return made
        error_class = ConnectTimeoutError if isinstance(failure, TimeoutError) else NewConnectionError
        raise error_class(self, f"cannot connect to {self.host}: {failure}") from failure

    def _report(self, used: Any) -> None:
        self.call = _current.get()
        if self.call is not None:
            self.call.use(used)


class _TlsConnection(BreakableConnection, HTTPSConnection):
    _handle: socket.socket | None = None

    def connect(self) -> None:
        if resolve_cert_reqs(self.cert_reqs) == ssl.CERT_NONE:
            # By default, the certificates of all authorities are read to check none: 16 ms of CPU time per connection.
            self.ca_certs = None
            self.ssl_context = create_urllib3_context(cert_reqs=ssl.CERT_NONE)
        try:
            super().connect()
        finally:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _new_conn(self) -> socket.socket:
        """Connect, and report a second handle of the socket, since only the SSL library has the first during the handshake."""
        made = super()._new_conn()
        try:
            self._handle = made.dup()
            self._report(self._handle)
        except OSError:
            made.close()
            raise
        return made


class BreakablePool(HTTPConnectionPool):
    ConnectionCls = BreakableConnection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.call is not None:
            conn.call.release()
            conn.call = None
        super()._put_conn(conn)


class _TlsPool(BreakablePool, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS_BY_SCHEME: Final = {"http": BreakablePool, "https": _TlsPool}  # for a pool manager of urllib3
