"""A TCP proxy that simulates the network between two processes: it can drop all data or reset connections.

with TcpProxy("127.0.0.1", 5432) as proxy:
    ... connect to 127.0.0.1:proxy.port ...
    proxy.partition()  # data is acknowledged and not forwarded
    proxy.heal()
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
_SECONDS = 10


class TcpProxy:
    """Listens on a port of `host` until `close`. Its methods may be called from any thread."""

    def __init__(self, target_host: str, target_port: int, host: str = "127.0.0.1") -> None:
        self.host = host
        self._target = (target_host, target_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp proxy", daemon=True)
        self._thread.start()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self._await(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def to(cls, url: str, host: str = "127.0.0.1") -> Self:
        """Return a proxy for the server of a URL."""
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        return cls(parts.hostname, parts.port, host)

    def through(self, url: str) -> str:
        """Return `url` with the address of this proxy."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{user}{'@' if user else ''}{self.host}:{self.port}").geturl()

    @property
    def connections(self) -> int:
        """Return the number of open connections."""
        return len(self._links)

    def partition(self) -> None:
        """Accept connections and data from both sides, and forward nothing."""
        self._call(self._flowing.clear)

    def heal(self) -> None:
        """Forward again, beginning with the data that was held back."""
        self._call(self._flowing.set)

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._await(self._cut())

    def restore(self) -> None:
        """Accept connections again."""
        self._await(self._listen())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._await(self._cut())
        self._call(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- in other threads ------------------------------------------------------------------------
    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)

    def _call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    # -- in the loop's thread -------------------------------------------------------------------------
    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._link, self.host, self.port, backlog=1024)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _link(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        ends = [client]
        try:
            await self._flowing.wait()
            server_reader, server = await asyncio.open_connection(*self._target)
            ends.append(server)
            await asyncio.gather(self._pump(client_reader, server), self._pump(server_reader, client))
        except (OSError, asyncio.CancelledError):
            for end in ends:
                with suppress(OSError):  # it may be closed
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        finally:
            self._links.discard(task)
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
        await self._flowing.wait()
        with suppress(OSError):
            writer.write_eof()
