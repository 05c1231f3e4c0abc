"""A real HTTP server that records every request and answers as planned.

with Receiver() as receiver:
    receiver.will(Answer(500), Answer(200, after="hang"))
    ...
    assert receiver.requests[0].json["jobsequence"] == 1
"""

import hashlib
import hmac
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

from standardwebhooks import Webhook

from tests.helpers.waiting import wait_for

_DRIP_SECONDS = 0.05
_CHUNK = b"x" * 65536

Fault = Literal[
    "hang",  # read the request, answer nothing
    "half",  # announce a body, send half of it, close
    "half_headers",  # send a good status, and close within the headers
    "endless",  # an endless body, as fast as it is read
    "endless_chunks",  # an endless body in chunks
    "endless_trailers",  # endless headers after the last chunk
    "endless_interim",  # endless interim responses (103)
    "drip",  # an endless body, one byte at a time
    "drip_headers",  # endless headers, one byte at a time
    "reset",  # read the request, reset the connection
    "garbage",  # answer something that is not HTTP
    "raw",  # send the body as the whole answer, close
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver answers; a `fault` says how it breaks the answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived."""

    method: str
    path: str  # with its query
    target: str  # the same, as in the request line
    headers: dict[str, str]  # names in lowercase
    body: bytes
    peer: tuple[str, int]  # the client's end of the connection

    @property
    def json(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    def verify(self, key: str) -> None:
        """Raise if either signature was not made with `key`; Standard Webhooks' own library checks theirs."""
        expected = "sha256=" + hmac.new(key.encode(), self.body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(self.headers["x-signature-256"], expected), "X-Signature-256 does not match the body"
        Webhook(key if key.startswith("whsec_") else key.encode()).verify(self.body, self.headers)


class Receiver:
    """Answers 200, or what `will` has planned. Set `respond` to decide for each request."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.max_at_once = 0  # requests that were being answered at the same time
        self.streamed = 0  # bytes sent of endless bodies
        self.respond: Callable[[Received], Answer] = self._planned_answer
        self._planned: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._in_progress = 0
        self._closing = threading.Event()
        self._server = _Server((host, port), self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "http" if tls is None else "https"
        self.port: int = self._server.server_address[1]
        self.url = f"{scheme}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def will(self, *answers: Answer) -> None:
        """Plan the answers to the next requests, one each."""
        self._planned.extend(answers)

    def wait_for(self, count: int, timeout: float = 30) -> list[Received]:
        """Wait until this many requests have arrived; return all requests."""
        return wait_for(lambda: self.requests if len(self.requests) >= count else None, timeout, f"{count} requests")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The CloudEvents received, without repetitions, in the order of their first arrival."""
        return list({received.json["id"]: received.json for received in self.requests}.values())

    def check_order(self) -> None:
        """Raise if an event arrived for the first time after a later one of the same subject."""
        last: dict[str, int] = {}
        seen: set[str] = set()
        for received in list(self.requests):
            event = received.json
            if event["id"] not in seen:
                seen.add(event["id"])
                assert event["jobsequence"] > last.get(event["subject"], 0), f"{event['type']} arrived late"
                last[event["subject"]] = event["jobsequence"]

    # -- for the handler -----------------------------------------------------------------------
    def accept(self, received: Received) -> Answer:
        with self._lock:
            self.requests.append(received)
            self._in_progress += 1
            self.max_at_once = max(self.max_at_once, self._in_progress)
        return self.respond(received)

    def _planned_answer(self, _: Received) -> Answer:
        with self._lock:
            return self._planned.popleft() if self._planned else Answer()

    def done(self) -> None:
        with self._lock:
            self._in_progress -= 1

    def pause(self, seconds: float | None = None) -> bool:
        """Wait; return False when the receiver closes."""
        return not self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], receiver: Receiver) -> None:
        self.receiver = receiver
        self._connections: set[socket.socket] = set()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: not self._connections, 5, "connections to be closed")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: that is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the client was killed: an incomplete request does not count
            self.close_connection = True
            return
        received = Received(
            method=self.command,
            path=self.path,
            target=self.raw_requestline.decode("latin-1").split(" ")[1],
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            peer=self.client_address[:2],
        )
        receiver = self.server.receiver
        answer = receiver.accept(received)
        try:
            self._answer(answer, receiver)
        finally:
            receiver.done()

    def _answer(self, answer: Answer, receiver: Receiver) -> None:
        self.close_connection = self.close_connection or answer.fault is not None
        match answer.fault:
            case "hang":
                while receiver.pause(_DRIP_SECONDS) and self._client_is_connected():
                    pass
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            case "garbage":
                self.wfile.write(b"\x00\xff this is not HTTP\r\n\r\n")
            case "raw":
                self.wfile.write(answer.body)
            case "half_headers":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Half: ")
            case "drip_headers":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                self._drip(receiver)
            case "drip":
                self._head(answer, {"Connection": "close"})
                self._drip(receiver)
            case "endless":
                self._head(answer, {"Connection": "close"})
                self._stream(receiver, _CHUNK)
            case "endless_chunks":
                self._head(answer, {"Transfer-Encoding": "chunked"})
                self._stream(receiver, b"%x\r\n%b\r\n" % (len(_CHUNK), _CHUNK))
            case "endless_trailers":
                self._head(answer, {"Transfer-Encoding": "chunked"})
                self.wfile.write(b"0\r\n")
                self._stream(receiver, b"X-Trailer: x\r\n" * 1000)
            case "endless_interim":
                self._stream(receiver, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
            case "half":
                self._head(answer, {"Content-Length": str(2 * len(answer.body or b"half"))})
                self.wfile.write(answer.body or b"half")
            case None:
                self._head(answer, {"Content-Length": str(len(answer.body))})
                self.wfile.write(answer.body)

    def _head(self, answer: Answer, headers: dict[str, str]) -> None:
        self.send_response(answer.status)
        for name, value in (headers | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _drip(self, receiver: Receiver) -> None:
        while receiver.pause(_DRIP_SECONDS):
            self.wfile.write(b"x")

    def _stream(self, receiver: Receiver, data: bytes) -> None:
        while receiver.pause(0):
            self.wfile.write(data)
            receiver.streamed += len(data)

    def _client_is_connected(self) -> bool:
        self.connection.settimeout(0.001)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) != b""
        except TimeoutError:
            return True
        except OSError:
            return False

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: failing tests say what they expected."""
