"""Registries on loopback: Debian's docker-registry, and one that delays its answers."""

import http.server
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from environment import free_port

from tests.helpers.waiting import wait_for

USER, PASSWORD = "user", "secret"
_HTPASSWD = "user:$2b$04$kA57LXwjbzkLZh8htvhCp.O8qdA/bRem5Lc15RD6RjD857lbYcX9u\n"
_CONFIG = """
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""
_AUTH = "auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}"


@contextmanager
def serve(directory: Path, *, private: bool = False) -> Iterator[str]:
    """Run a real registry, and yield its host and port. A private one requires `USER` and `PASSWORD`."""
    directory.mkdir(parents=True)
    port = free_port()
    auth = _AUTH.format(directory=directory) if private else ""
    (directory / "config.yml").write_text(_CONFIG.format(directory=directory, port=port, auth=auth))
    (directory / "htpasswd").write_text(_HTPASSWD)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", directory / "config.yml"],
            stdout=log,
            stderr=log,
            env={"OTEL_TRACES_EXPORTER": "none", "PATH": "/usr/bin:/bin"},
        )
    try:
        wait_for(lambda: process.poll() is not None or _answers(port), what="docker-registry")
        assert process.poll() is None, (directory / "log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).status_code in (200, 401)
    except requests.ConnectionError:
        return False


class HeldRegistry:
    """A registry without images that does not answer before `release`. `requests` lists the requested paths."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._released = threading.Event()
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.requests.append(self.path)
                registry._released.wait(60)
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._released.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
