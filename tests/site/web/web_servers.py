"""A web server in a thread, with the application, limits and intervals of a test."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.client import HTTPResponse
from typing import Any

from gunicorn.config import Config

from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.web.connection_table import Limits
from orchestrator_site.web.event_loop import Server

THREADS = 4
Application = Callable[[dict[str, Any], Any], Any]


def config() -> Config:
    settings = Config()
    settings.set("threads", THREADS)
    settings.set("forwarder_headers", "")  # as orchestrator_site/gunicorn.py
    settings.set("header_map", "drop")
    return settings


class Web:
    """A server that serves until the test ends."""

    def __init__(self, listener: socket.socket, application: Application, limits: Limits, intervals: WebIntervals) -> None:
        self.address = listener.getsockname()
        self.server = Server([listener], config(), application, limits, intervals)
        self._tick = intervals.tick
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.server.serve(self._tick)
        self.server.stop()
        while not self.server.is_done:
            self.server.serve(0.1)
        self.server.close()

    def begin_stop(self) -> None:
        """Stop as at SIGTERM."""
        self._stopping.set()
        self.server.wake()

    def wait_for_end(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server does not stop"

    def connect(self, data: bytes = b"", *, receive_buffer: int | None = None) -> socket.socket:
        """Open a connection, which the test closes, and send `data`."""
        client = socket.socket()
        client.settimeout(30)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(self.address)
        client.sendall(data)
        return client

    def exchange(self, data: bytes) -> "Answered":
        """Send `data`; return the answer."""
        with self.connect(data) as client:
            return read_answer(client)


class Answered:
    """An answer that has been read to its end."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def closes(self) -> bool:
        return self.headers["Connection"] == "close"

    @property
    def error(self) -> str:
        """Return the message of an error in JSON."""
        assert self.headers["Content-Type"] == "application/json"
        body = json.loads(self.body)
        assert body.keys() == {"error"}
        sentence: str = body["error"]
        return sentence


class _KeptOpen:
    """Lets `HTTPResponse` read one answer from a connection and no byte of the next."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def makefile(self, mode: str) -> Any:
        return self._client.makefile("rb", buffering=1)


def read_answer(client: socket.socket, method: str = "GET") -> Answered:
    """Return the next answer on a connection."""
    with HTTPResponse(_KeptOpen(client), method=method) as response:
        response.begin()
        return Answered(response)


def is_at_end(client: socket.socket) -> bool:
    """Wait for the server to send or close; return whether it has closed the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@contextmanager
def serving(
    application: Application, limits: Limits = Limits(), *, listener: socket.socket | None = None, **intervals: float
) -> Iterator[Web]:
    """Serve inside the block. `intervals` replace those of `WebIntervals`, of which `tick` is short."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) if listener is None else nullcontext(listener) as listener:
        web = Web(listener, application, limits, WebIntervals(**{"tick": 0.05, **intervals}))
        try:
            yield web
        finally:
            web.begin_stop()
            web.wait_for_end()
