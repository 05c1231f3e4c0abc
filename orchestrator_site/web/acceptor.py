"""Accepts new connections."""

import logging
import selectors
import socket
import time
from typing import Any, Final

from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.web.client_connection import ClientConnection
from orchestrator_site.web.connection_table import ConnectionTable

logger = logging.getLogger(__name__)

_ACCEPTS_PER_ROUND: Final = 32
_SEND_BUFFER_BYTES: Final = 256 * 1024  # the kernel's, for each connection: without a limit it grows to megabytes


class Acceptor:
    """A watch over the listening sockets while another connection is allowed. Used by the event loop's thread only."""

    def __init__(
        self,
        listeners: list[Any],
        selector: selectors.BaseSelector,
        connections: ConnectionTable,
        cfg: Any,
        intervals: WebIntervals,
    ) -> None:
        """Prepare to watch. `cfg` is gunicorn's configuration."""
        self._listeners = listeners
        self._selector = selector
        self._connections = connections
        self._cfg = cfg
        self._pause = intervals.tick  # after a failed accept
        self._unacknowledged_ms = round(intervals.unacknowledged * 1000)
        self._watching = False
        self._paused_until = 0.0
        self._stopped = False

    def update(self) -> None:
        """Start or stop watching the listeners, as the number of connections demands."""
        self._watch(not self._stopped and self._connections.can_add and time.monotonic() >= self._paused_until)

    def stop(self) -> None:
        self._stopped = True
        self._watch(False)

    def accept(self, listener: Any) -> None:
        """Accept some of the connections that wait at a listener."""
        for _ in range(_ACCEPTS_PER_ROUND):
            if not self._connections.can_add:
                return
            try:
                sock, client = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptor is free, for example
                logger.warning("cannot accept a connection: %s", error)
                self._connections.evict()
                self._paused_until = self._connections.now + self._pause
                return
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unacknowledged_ms)
            self._connections.add(ClientConnection(sock, client, listener.getsockname(), self._cfg))

    def _watch(self, watching: bool) -> None:
        if watching == self._watching:
            return
        self._watching = watching
        for listener in self._listeners:
            if watching:
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ)
            else:
                self._selector.unregister(listener)
