"""An archive whose source fails: the engine is told that it ends, and is heard before the error is raised."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.engine.docker import DockerEngine
from jobs.errors import EngineUnavailable
from tests.jobs.engine.docker.scripted_daemon import answer

pytestmark = pytest.mark.stateless

A_DIRECTORY = b"eyJuYW1lIjogIi8iLCAic2l6ZSI6IDQwOTYsICJtb2RlIjogMjE0NzQ4NDE0MX0="  # X-Docker-Container-Path-Stat of one
END_OF_BODY = b"0\r\n\r\n"


class UnpackingDaemon:
    """A daemon that answers a `PUT` once its body has ended, unless `dies`."""

    def __init__(self, path: Path, *, dies: bool) -> None:
        self.host = f"unix://{path}"
        self.seen: list[str] = []
        self._dies = dies
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for _ in ("GET /version", "HEAD", "PUT"):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(20)
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                connection.sendall(self._answer(connection, received))

    def _answer(self, connection: socket.socket, received: bytes) -> bytes:
        if received.startswith(b"GET"):
            return answer(200, {"ApiVersion": "1.41"})
        if received.startswith(b"HEAD"):
            return b"HTTP/1.1 200 X\r\nX-Docker-Container-Path-Stat: %s\r\nConnection: close\r\n\r\n" % A_DIRECTORY
        while not received.endswith(END_OF_BODY):
            if not (more := connection.recv(65536)):
                self.seen.append("broken off")
                return b""
            received += more
        self.seen.append("ended")
        return b"" if self._dies else answer(500, {"message": "unexpected EOF"})

    def close(self) -> None:
        self._thread.join(20)
        self._listener.close()


def broken() -> Iterator[bytes]:
    yield b"the start of an archive"
    raise OSError("broken download")


def test_the_engine_answers_before_the_error_is_raised(tmp_path: Path) -> None:
    # Given an engine that unpacks an archive whose source fails
    with closing(UnpackingDaemon(tmp_path / "socket", dies=False)) as daemon:
        # When it is put, I expect the source's error, and an archive that ended in order
        with pytest.raises(OSError, match="broken download"):
            DockerEngine(daemon.host).put("job", "/", broken())
        assert daemon.seen == ["ended"]


def test_without_an_answer_the_engine_may_still_unpack(tmp_path: Path) -> None:
    # Given an engine that dies before it answers
    with closing(UnpackingDaemon(tmp_path / "socket", dies=True)) as daemon:
        # I expect its error, so that no other archive is put into the same container
        with pytest.raises(EngineUnavailable):
            DockerEngine(daemon.host).put("job", "/", broken())
        assert daemon.seen == ["ended"]
