"""A file server in a process of its own, fast enough that it is not what limits a benchmark.

As a program, it serves a file with `sendfile`, with ranges, and discards the bodies of PUT requests. `GET /begun` answers when
the last other request had arrived, on the monotonic clock.
"""

import re
import socketserver
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPMessage, parse_headers
from pathlib import Path
from typing import Any, Self

MODULE = "tests.bench.measuring.file_server"
BLOCK = 1024**2


class FileServer:
    """The parent's side: serves `path` at `url`, and accepts uploads there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, "-m", MODULE, str(self._path)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/file"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def begun(self) -> float:
        """Return when the last request had arrived, on the monotonic clock."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/begun")
        when = float(connection.getresponse().read())
        connection.close()
        return when

    def download(self) -> None:
        """Read the file as a bare client does."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/file")
        answer, buffer = connection.getresponse(), bytearray(BLOCK)
        while answer.readinto(buffer):
            pass
        connection.close()

    def upload(self) -> None:
        """Send the file as a bare client does."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60, blocksize=BLOCK)
        with self._path.open("rb") as file:
            connection.request("PUT", "/file", file, {"Content-Length": str(self._path.stat().st_size)})
        assert connection.getresponse().status == 200
        connection.close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    path: Path
    begun = 0.0


class _Exchange(socketserver.StreamRequestHandler):
    """The requests of one connection."""

    server: Any  # of type _Server, which the base class does not know
    wbufsize = 0

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, target, _ = line.decode().split(" ")
            headers = parse_headers(self.rfile)
            if target == "/begun":
                self._answer(str(self.server.begun).encode())
                continue
            self.server.begun = time.monotonic()
            if method == "PUT":
                self._read(int(headers["Content-Length"]))
            else:
                self._send(headers)

    def _read(self, length: int) -> None:
        buffer = memoryview(bytearray(BLOCK))
        while length and (count := self.rfile.readinto(buffer[: min(length, BLOCK)])):
            length -= count
        self._answer(b"")

    def _send(self, headers: HTTPMessage) -> None:
        size = self.server.path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        status = f"206 Partial Content\r\nContent-Range: bytes {start}-{size - 1}/{size}" if asked else "200 OK"
        self.wfile.write(f'HTTP/1.1 {status}\r\nContent-Length: {size - start}\r\nETag: "1"\r\n\r\n'.encode())
        with self.server.path.open("rb") as file:
            self.connection.sendfile(file, start)

    def _answer(self, body: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


if __name__ == "__main__":
    with _Server(("127.0.0.1", 0), _Exchange) as server:
        server.path = Path(sys.argv[1])
        print(server.server_address[1], flush=True)
        server.serve_forever()
