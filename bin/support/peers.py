"""The demo's peers: HTTP servers on loopback for its job's download, upload and webhook."""

import hashlib
import hmac
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY_BYTES = 1024**2


@dataclass
class Peers:
    """What the servers send, and what they have received."""

    key: str
    content: bytes  # of the download
    uploads: dict[str, bytes] = field(default_factory=dict)
    events: "queue.SimpleQueue[Event]" = field(default_factory=queue.SimpleQueue)
    urls: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """A CloudEvent, and what is wrong with its signatures ('' if nothing is)."""

    body: dict[str, Any]
    fault: str


class Handler(BaseHTTPRequestHandler):
    """The base of the three servers."""

    protocol_version = "HTTP/1.1"
    peers: Peers

    def log_message(self, *_: object) -> None:
        """Log nothing: the demo prints the events."""

    def body(self) -> bytes:
        """Return the body of the request, chunked or not."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BODY_BYTES))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Download(Handler):
    def do_GET(self) -> None:
        self.answer(200, self.peers.content)


class Upload(Handler):
    def do_PUT(self) -> None:
        self.peers.uploads[self.path] = self.body()
        self.answer(201)


class WebhookReceiver(Handler):
    def do_POST(self) -> None:
        body = self.body()
        fault = signature_fault(self.peers.key, body, dict(self.headers.items()))
        self.peers.events.put(Event(json.loads(body), fault))
        self.answer(204)


def signature_fault(key: str, body: bytes, headers: dict[str, str]) -> str:
    """Return what is wrong with the signatures of a request, '' if both are valid."""
    lower = {name.lower(): value for name, value in headers.items()}
    if not hmac.compare_digest(lower.get("x-signature-256", ""), body_signature(key, body)):
        return "X-Signature-256 does not match"
    try:
        Webhook(key).verify(body, lower)
    except WebhookVerificationError as error:
        return f"webhook-signature does not match: {error}"
    return ""


def body_signature(key: str, body: bytes) -> str:
    """Return the expected X-Signature-256."""
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


@contextmanager
def served(peers: Peers) -> Iterator[Peers]:
    """Run the servers, with their URLs in `peers.urls` under `download`, `upload` and `webhook`."""
    servers = []
    try:
        for name, handler in (("download", Download), ("upload", Upload), ("webhook", WebhookReceiver)):
            server = ThreadingHTTPServer(("127.0.0.1", 0), type(name, (handler,), {"peers": peers}))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            servers.append(server)
            peers.urls[name] = f"http://127.0.0.1:{server.server_port}"
        yield peers
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
