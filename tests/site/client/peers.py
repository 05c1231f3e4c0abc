"""A server that answers the client as a test says."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the peer answers; a status of 0 closes the connection after the request was read.

    `missing` is how many bytes of the announced body are not sent before the connection closes.
    """

    status: int
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    effect: Callable[[], None] = lambda: None  # happens before the answer
    missing: int = 0


class Peer:
    """A server that gives one reply after the other, and records the requests: method, path, headers and body."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def serving(peer: Peer, port: int = 0) -> Iterator[None]:
    """Serve in a thread, on any free port of loopback if none is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            peer.requests.append((self.command, self.path, dict(self.headers), body))
            reply = peer.replies.popleft()
            reply.effect()
            if reply.status == 0:
                self.close_connection = True
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(content)))
            # A connection that stays open would outlive the server of a test that stops it.
            self.send_header("Connection", "close")
            self.close_connection = True
            with suppress(ConnectionError):  # the client may be gone, because of the effect
                self.end_headers()
                if reply.status != 204:
                    self.wfile.write(content[: len(content) - reply.missing])

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
