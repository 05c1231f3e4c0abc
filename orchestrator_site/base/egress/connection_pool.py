"""Keeps idle connections for later requests to the same origin."""

import ssl
import threading
from collections import OrderedDict
from typing import Final

import certifi
from django.conf import settings

from orchestrator_site.base.egress.errors import EgressFailed
from orchestrator_site.base.egress.guarded_connections import GuardedConnection
from orchestrator_site.base.values.http_urls import HttpUrl

_MAX_ORIGINS: Final = 32  # with idle connections
MAX_IDLE_CONNECTIONS: Final = 8  # per origin: the default of DELIVERIES_PER_HOST


class ConnectionPool:
    """Idle connections, to be used again by any thread.

    Raises `EgressFailed` if CA_BUNDLE can no longer be read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: OrderedDict[str, list[GuardedConnection]] = OrderedDict()  # by origin; the last used at the end
        self._tls = ssl.create_default_context(cafile=certifi.where())
        self._tls.set_alpn_protocols(["http/1.1"])
        if bundle := settings.CONFIGURATION.ca_bundle:
            try:
                self._tls.load_verify_locations(bundle)
            except OSError as error:
                raise EgressFailed(f"CA_BUNDLE cannot be read: {error.strerror}") from error

    def __del__(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()

    def acquire(self, url: HttpUrl, reuse: float) -> GuardedConnection:
        """Return the connection to this origin that was used last, or a new one if none was within `reuse` seconds."""
        while True:
            with self._lock:
                idle = self._idle.get(url.root)
                connection = idle.pop() if idle else None
            if connection is None:
                return GuardedConnection(url, self._tls)
            if connection.is_alive(reuse):
                return connection
            connection.close()

    def release(self, connection: GuardedConnection) -> None:
        """Keep an idle connection for the next request."""
        with self._lock:
            idle = self._idle.setdefault(connection.origin, [])
            self._idle.move_to_end(connection.origin)
            idle.append(connection)
            surplus = idle[:-MAX_IDLE_CONNECTIONS]
            del idle[:-MAX_IDLE_CONNECTIONS]
            if len(self._idle) > _MAX_ORIGINS:
                surplus += self._idle.popitem(last=False)[1]
        for closed in surplus:
            closed.close()
