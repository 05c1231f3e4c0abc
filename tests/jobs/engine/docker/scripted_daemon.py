"""A fake Docker daemon that answers with scripted bytes, and functions that make such answers."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NEVER = "0001-01-01T00:00:00Z"

# Three moments, in this order.
EARLY, MIDDLE, LATE = "2026-01-01T00:00:02.5Z", "2026-01-01T01:00:03.5+01:00", "2026-01-01T00:00:04Z"


class ScriptedDaemon:
    """Listens on a unix socket. The first path in `answers` that the request line contains selects the answer."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.answers: dict[str, bytes | Callable[[], bytes]] = {
            "/version": answer(200, {"ApiVersion": "1.41"}),
            "/networks": answer(200, []),
        }
        self.requests: list[bytes] = []  # the head of each
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.close_after_answer = True
        self.unanswered: tuple[str, ...] = ()  # parts of request lines that are never answered
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(50)
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def request_lines(self) -> list[str]:
        return [head.partition(b"\r\n")[0].decode() for head in self.requests]

    def count(self, part: str) -> int:
        """Return the number of requests whose line contains `part`."""
        return sum(part in line for line in self.request_lines)

    @property
    def connections(self) -> int:
        """Return the number of open connections."""
        return sum(connection.fileno() >= 0 for connection in self._open)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while self._answer(connection):
                pass

    def _answer(self, connection: socket.socket) -> bool:
        """Answer one request; return whether another may follow on the connection."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (received := connection.recv(65536)):
                connection.close()  # `close` may not know of a connection that was accepted late
                return False
            head += received
        line = head.partition(b"\r\n")[0].decode()
        self.requests.append(head)
        self.may_answer.wait()
        if any(part in line for part in self.unanswered):
            return False  # the connection stays open, and the rest of the request stays unread
        scripted = next((scripted for path, scripted in self.answers.items() if path in line), NOT_SCRIPTED)
        connection.sendall(scripted if isinstance(scripted, bytes) else scripted())
        if self.close_after_answer:
            connection.shutdown(socket.SHUT_RDWR)
        return not self.close_after_answer

    def refuse(self) -> None:
        """Accept no new connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.may_answer.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()  # it may be about to accept one more
        for connection in [self._listener, *self._open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def answer(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content


NOT_SCRIPTED = answer(500, {"message": "the test has no answer for this request"})


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


def frame(data: bytes, kind: int = 1, moment: bytes = b"2026-01-01T00:00:00.000000000Z") -> bytes:
    """Return a frame of a multiplexed log."""
    payload = moment + b" " + data
    return bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def inspected(*, started: str = NEVER, finished: str = NEVER, exit_code: int = 0, status: str = "exited") -> bytes:
    """Return the answer to `GET /containers/job/json`."""
    state = {
        "Status": status,
        "Running": False,
        "StartedAt": started,
        "FinishedAt": finished,
        "ExitCode": exit_code,
        "OOMKilled": False,
        "Error": "",
    }
    return answer(
        200,
        {
            "Id": "0",
            "Name": "/job",
            "Created": "2026-01-01T00:00:00Z",
            "State": state,
            "Config": {"Labels": None, "Entrypoint": ["x", "/x"], "WorkingDir": "/workspace"},
            "HostConfig": {"NetworkMode": "orc-1"},
        },
    )


def networks(began: str | None) -> list[dict[str, str]]:
    """Return the networks of an engine that began at that time; None if it has no default network."""
    return [{"Name": "bridge", "Created": began}] if began else []
