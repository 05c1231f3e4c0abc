"""Breakable connections to a Docker engine, over TCP and over a unix socket."""

from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool
from requests.adapters import HTTPAdapter

from jobs.engine.breakable_sockets import POOLS_BY_SCHEME, BreakableConnection, BreakablePool


class _UnixConnection(BreakableConnection, UnixHTTPConnection):
    """A connection over a unix socket, where connecting does not block."""


class _UnixPool(BreakablePool, UnixHTTPConnectionPool):
    def _new_conn(self) -> _UnixConnection:  # type: ignore[override] # as docker-py's
        return _UnixConnection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]


class TcpAdapter(HTTPAdapter):
    """A pool of breakable connections to a host."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS_BY_SCHEME


class UnixAdapter(UnixHTTPAdapter):
    """One pool of breakable connections to a unix socket.

    docker-py has a pool for each path of the API. Paths contain names of containers, so most connections would be used once.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = _UnixPool("http+docker://localhost", self.socket_path, self.timeout, maxsize=self.max_pool_size)

    def get_connection(self, url: str | bytes, proxies: object = None) -> _UnixPool:  # noqa: ARG002 - called so by requests
        return self._pool

    def close(self) -> None:
        self._pool.close()
