"""Receives outputs of a job on this machine: a small HTTP server at an address that the service's workers can reach.

Each output has a URL with a random query, which no answer or log of the service shows, so that only it can write the file. A file
takes its place only when all of it has arrived; the service repeats an upload that broke off.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6, AddressFamily, SocketType
from socketserver import TCPServer
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

from orchestrator_site.base.intervals import ClientIntervals
from orchestrator_site.client.errors import ClientError, UsageError
from orchestrator_site.client.options.option_values import FileOption
from orchestrator_site.client.service.address import LOOPBACK
from orchestrator_site.client.texts import shown

_PIECE: Final = 256 * 1024
_UNREACHABLE: Final = ("0.0.0.0", "::")  # noqa: S104 - refused


class UploadServer:
    """The files to receive, and the server's address."""

    def __init__(self, host: str, port: int, intervals: ClientIntervals = ClientIntervals()) -> None:
        """Listen on this address. Raise `ClientError` if that is impossible."""
        self.host: Final = host
        self.files: Final[dict[str, Path]] = {}
        self._parts: set[str] = set()
        self._stop_check = intervals.upload_stop
        family = AF_INET6 if ":" in host else AddressFamily.AF_INET
        kind = type("_Server", (_Server,), {"address_family": family})
        shared = {"files": self.files, "parts": self._parts, "new_mode": _mode_of_new_files()}
        handler = type("_Handler", (_Handler,), {"timeout": intervals.upload_silence, **shared})
        try:
            self._server = kind((host, port), handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not an address"
            raise ClientError(f"cannot listen on {shown(host)} for the files of --output ({reason})") from error
        name = f"[{host}]" if ":" in host else host
        self._url = f"http://{name}:{self._server.server_address[1]}"

    def expect(self, option: FileOption) -> str:
        """Return the URL to which the output must be sent. Raise `ClientError` if its file cannot be written."""
        path, destination = f"/?{secrets.token_urlsafe(32)}", _destination(option)
        if destination in self.files.values():
            raise ClientError(f"--output {shown(option)}: another output goes to this file, too")
        self.files[path] = destination
        return self._url + path

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve in a thread. At the end, remove the parts of files that are still arriving."""
        thread = Thread(target=self._server.serve_forever, args=[self._stop_check], name="uploads", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
            for name in self._parts.copy():
                with suppress(OSError):
                    os.unlink(name)


def listen_address(service_url: str, listen: str | None) -> tuple[str, int]:
    """Return the host and port to listen on. Raise `UsageError` if the service is elsewhere and none is given."""
    if listen is None:
        host = urlsplit(service_url).hostname
        if host not in LOOPBACK:
            raise UsageError(
                f"--output to a file needs --listen ADDRESS, an address of this machine that the workers of {service_url} reach"
            )
        return ("::1" if host == "::1" else "127.0.0.1"), 0
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port or 0
    except ValueError:
        host = None
    if not host or parts.path or parts.query or parts.username is not None or host in _UNREACHABLE:
        raise UsageError("--listen must be an address such as 192.0.2.7, 192.0.2.7:8200 or [2001:db8::7]:8200")
    return host, port


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without looking up the name of the host, which may take long and is not used."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: SocketType | tuple[bytes, SocketType], client_address: object) -> None:
        """Print nothing: the service repeats an upload that broke off, and says so if all of them fail."""


class _Handler(BaseHTTPRequestHandler):
    """Takes `PUT` of the expected files."""

    protocol_version = "HTTP/1.1"
    files: dict[str, Path] = {}
    parts: set[str] = set()
    new_mode = 0o600

    def do_PUT(self) -> None:
        destination = self.files.get(self.path)
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._answer(HTTPStatus.LENGTH_REQUIRED)
            return
        try:
            if destination is None:
                self.rfile.read(min(int(length), _PIECE))  # closing with unread bytes would take the answer away
                self._answer(HTTPStatus.NOT_FOUND)
            else:
                self._receive(destination, int(length))
                self._answer(HTTPStatus.NO_CONTENT)
        except _Broken:
            self.close_connection = True
        except OSError:
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE)

    def _receive(self, destination: Path, length: int) -> None:
        """Write the body to a file beside the destination, and move it there once it is whole."""
        handle, name = tempfile.mkstemp(prefix=".run-", suffix=".part", dir=destination.parent)
        self.parts.add(name)
        try:
            with os.fdopen(handle, "wb") as file:
                while length:
                    piece = self._piece(min(length, _PIECE))
                    file.write(piece)
                    length -= len(piece)
                os.fchmod(file.fileno(), _mode_of(destination, self.new_mode))
            os.replace(name, destination)
        finally:
            with suppress(OSError):
                os.unlink(name)
            self.parts.discard(name)

    def _piece(self, size: int) -> bytes:
        try:
            piece = self.rfile.read(size)
        except OSError as error:
            raise _Broken from error
        if not piece:
            raise _Broken
        return piece

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the path is a secret."""


class _Broken(Exception):
    """The sender went away."""


def _destination(option: FileOption) -> Path:
    """Return the file to write, with links resolved. Raise `ClientError` if it cannot be written."""
    try:
        path = Path(option.other).resolve()
        if path.is_dir():
            reason = "it is a directory"
        elif path.exists() and not stat.S_ISREG(path.stat().st_mode):
            reason = "it is not a regular file"
        elif not path.parent.is_dir():
            reason = "its directory does not exist"
        elif not os.access(path.parent, os.W_OK):
            reason = "its directory is not writable"
        else:
            return path
    except (OSError, ValueError, RuntimeError):
        reason = "it is not the name of a file"
    raise ClientError(f"--output {shown(option)}: cannot write the file ({reason})")


def _mode_of(destination: Path, new: int) -> int:
    """Return the permissions of a file that is replaced, without setuid as after any write; `new` if there is none."""
    with suppress(OSError):
        return destination.stat().st_mode & 0o777
    return new


def _mode_of_new_files() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
