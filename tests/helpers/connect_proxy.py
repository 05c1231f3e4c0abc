"""An HTTP proxy that makes tunnels (CONNECT), and records what it was asked for.

with ConnectProxy() as proxy:
    ...
    assert proxy.targets == ["127.0.0.1:8080"]
"""

import socket
import socketserver
import threading
from contextlib import suppress
from typing import Any, Self

ENDLESS = b"x" * 20_000


class ConnectProxy:
    """Listens on a port of 127.0.0.1. Answers `answer` instead of making a tunnel, if that is set.

    After b"" and `ENDLESS` it leaves the connection open.
    """

    def __init__(self) -> None:
        self.heads: list[str] = []  # of its requests
        self.answer: bytes | None = None
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def targets(self) -> list[str]:
        """Where it was asked to connect to."""
        return [head.split(" ")[1] for head in self.heads]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    proxy: ConnectProxy


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        proxy, head = self.server.proxy, b""
        while not head.endswith(b"\r\n\r\n"):
            if not (data := self.request.recv(4096)):
                return
            head += data
        proxy.heads.append(head.decode())
        if proxy.answer is not None:
            self.request.sendall(proxy.answer)
            if proxy.answer in (b"", ENDLESS):
                proxy.closing.wait()
            return
        host, _, port = proxy.targets[-1].rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as peer:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            threading.Thread(target=_copy, args=(peer, self.request), daemon=True).start()
            _copy(self.request, peer)


def _copy(source: Any, target: Any) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
