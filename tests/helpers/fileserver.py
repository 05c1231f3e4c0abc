"""An HTTP file server on loopback with byte ranges, uploads and injected faults.

`server.serve("/a", b"…")` serves a file. `server.fault("/a", …)` changes how the next request for that path is answered; several
faults queue up. `server.requests` records the requests.
"""

import hashlib
import re
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CHUNK = 64 * 1024
_MAX_KEPT_BODY = 64 * 1024
_DRIP_SECONDS = 0.02

Fault = Callable[["Exchange"], None]


@dataclass
class Served:
    """A file with its headers."""

    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True


@dataclass
class Recorded:
    """A request, with the first 64 KiB of its body, and the size and sha256 of the whole body."""

    method: str
    path: str
    headers: Mapping[str, str]
    target: str  # path and query in the request line
    body: bytes = b""
    size: int = 0
    sha256: str = ""


class FileServer:
    """Use as a context manager; hanging answers end with it."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.closing = threading.Event()
        self.hanging = threading.Semaphore(0)  # released by every exchange that starts to hang
        self._files: dict[str, Served] = {}
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._server = _Server(("127.0.0.1", 0), Exchange)
        self._server.files = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> "FileServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self, path: str, content: bytes, *, ranges: bool = True, **headers: str) -> str:
        """Serve `content`; return its URL. Write `headers` with underscores for hyphens."""
        self._files[path] = Served(content, {name.replace("_", "-"): value for name, value in headers.items()}, ranges)
        return self.url(path)

    def fault(self, path: str, *faults: Fault) -> str:
        self._faults[path].extend(faults)
        return self.url(path)

    def heal(self, path: str) -> None:
        """Remove the remaining faults of a path."""
        self._faults[path].clear()

    def of(self, path: str) -> list[Recorded]:
        """Return the requests for a path so far."""
        return [request for request in self.requests if request.path == path]

    def find(self, path: str) -> Served | None:
        return self._files.get(path)

    def next_fault(self, path: str) -> Fault | None:
        waiting = self._faults[path]
        return waiting.popleft() if waiting else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    files: FileServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: it is not an error of the server if a client disconnects."""


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def files(self) -> FileServer:
        return self.server.files

    @property
    def plain_path(self) -> str:
        return self.path.partition("?")[0]

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self.record()
        fault = self.files.next_fault(self.plain_path)
        if fault is not None:
            fault(self)
        else:
            self.send_file()

    def do_PUT(self) -> None:
        fault = self.files.next_fault(self.plain_path)
        if fault is not None:
            fault(self)
        else:
            self.read_body()
            self.answer(HTTPStatus.CREATED)

    do_POST = do_PUT  # noqa: N815 - required by http.server

    def record(self) -> Recorded:
        target = self.raw_requestline.decode("latin-1").split(" ")[1]
        recorded = Recorded(self.command, self.plain_path, dict(self.headers.items()), target)
        self.files.requests.append(recorded)
        return recorded

    def read_body(self) -> Recorded:
        """Read the body."""
        recorded = self.record()
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left and (data := self.rfile.read(min(left, _CHUNK))):
            left -= len(data)
            recorded.size += len(data)
            recorded.body += data[: _MAX_KEPT_BODY - len(recorded.body)]
            digest.update(data)
        recorded.sha256 = digest.hexdigest()
        return recorded

    def answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self) -> None:
        """Send the file, or the requested range if it is of the same version."""
        served = self.files.find(self.plain_path)
        if served is None:
            self.answer(HTTPStatus.NOT_FOUND)
            return
        start = self.range_start(served)
        if start is None:
            self.answer(HTTPStatus.OK, served.headers, served.content)
        elif start >= len(served.content):
            self.answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{len(served.content)}"})
        else:
            total = len(served.content)
            given = {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
            self.answer(HTTPStatus.PARTIAL_CONTENT, {**served.headers, **given}, served.content[start:])

    def range_start(self, served: Served) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not served.ranges:
            return None
        version = (served.headers.get("ETag"), served.headers.get("Last-Modified"))
        return int(asked[1]) if self.headers.get("If-Range") in (None, *version) else None

    def hang(self) -> None:
        """Send nothing more until the server closes."""
        self.files.hanging.release()
        self.files.closing.wait()
        self.close_connection = True


# -- faults ------------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Read the body and answer. Write `headers` with underscores for hyphens."""

    def fault(exchange: Exchange) -> None:
        if exchange.command != "GET":
            exchange.read_body()
        exchange.answer(code, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    return fault


def redirect(location: str, code: int = 302) -> Fault:
    return status(code, Location=location)


def raw(head: str, body: bytes = b"", *, hang: bool = False) -> Fault:
    """Send exactly this, then close or hang."""

    def fault(exchange: Exchange) -> None:
        exchange.wfile.write(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
        if hang:
            exchange.hang()
        exchange.close_connection = True

    return fault


def cut(after: int, *, hang: bool = False, give: int = HTTPStatus.OK, **changed: str) -> Fault:
    """Close (or hang) after the first bytes of a file, or of the requested range."""

    def fault(exchange: Exchange) -> None:
        served = exchange.files.find(exchange.plain_path)
        assert served is not None
        start = exchange.range_start(served) or 0
        total = len(served.content)
        exchange.send_response(HTTPStatus.PARTIAL_CONTENT if start else give)
        headers = {**served.headers, "Content-Length": str(total - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        for name, value in {**headers, **{name.replace("_", "-"): value for name, value in changed.items()}}.items():
            exchange.send_header(name, value)
        exchange.end_headers()
        exchange.wfile.write(served.content[start : start + after])
        if hang:
            exchange.hang()
        exchange.close_connection = True

    return fault


def hang(exchange: Exchange) -> None:
    """Read the request and never answer."""
    exchange.hang()


def reset(exchange: Exchange) -> None:
    """Reset the connection."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    exchange.close_connection = True


def early(code: int, after: int) -> Fault:
    """Answer after the first bytes of the body and close."""

    def fault(exchange: Exchange) -> None:
        recorded = exchange.record()
        recorded.size = len(exchange.rfile.read(after))
        exchange.answer(code, {"Connection": "close"})
        exchange.connection.shutdown(socket.SHUT_WR)
        exchange.close_connection = True

    return fault


def drip(exchange: Exchange) -> None:
    """Read the request and answer a byte at a time, without end."""
    if exchange.command != "GET":
        exchange.read_body()
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    exchange.files.hanging.release()
    while not exchange.files.closing.wait(_DRIP_SECONDS):
        exchange.wfile.write(b"x")
    exchange.close_connection = True


def drip_body(exchange: Exchange) -> None:
    """Answer a body a byte at a time, without end."""
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    exchange.files.hanging.release()
    while not exchange.files.closing.wait(_DRIP_SECONDS):
        exchange.wfile.write(b"x")
    exchange.close_connection = True
