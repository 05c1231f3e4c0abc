"""Requests that tests send to the web server, and applications that answer them."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

from tests.site.web.web_servers import THREADS, Web

MANY = 3 * THREADS
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: "
HALF_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"
TOO_LONG = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
LONG_ANSWER_BYTES = 30_000_000


def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer method, path and body of the request."""
    body = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Long:
    """An application with long answers except at `/short`; it counts the bytes produced and the answers closed."""

    def __init__(self, between: Callable[[int], object] = lambda produced: None) -> None:
        """`between` is called after each part with the number of bytes of this answer so far."""
        self.produced = 0
        self.begun = 0
        self.closed = 0
        self._between = between

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/short":
            return echo(environ, start_response)
        start_response("200 OK", [])
        self.begun += 1
        return self._parts()

    def _parts(self) -> Iterator[bytes]:
        try:
            for part in range(1, LONG_ANSWER_BYTES // 50_000 + 1):
                self.produced += 50_000
                yield b"x" * 50_000
                self._between(part * 50_000)
        finally:
            self.closed += 1


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(1_000_000):
        received += piece
    return received


def expect_served(web: Web, path: str = "/short") -> None:
    assert web.exchange(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).status == 200
