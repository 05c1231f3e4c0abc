"""Stopping a unit of systemd, whose private socket a thread of the test plays."""

import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.engine.docker.usage.systemd import Manager

UNIT = r"system-orc\x2d1.slice"
HEADER = struct.Struct("<cBBBIII")
METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4

Answer = Callable[[socket.socket], None]


def message(kind: int, fields: bytes = b"", body: bytes = b"") -> bytes:
    return HEADER.pack(b"l", kind, 1, 1, len(body), 1, len(fields)) + fields + b"\0" * (-len(fields) % 8) + body


class FakeSystemd:
    """Accepts one connection, and records the login and the message that arrive there."""

    def __init__(self, root: Path, *answers: bytes, login: bytes = b"OK 0123\r\n") -> None:
        (root / "run" / "systemd").mkdir(parents=True)
        self._listener = socket.create_server(str(root / "run" / "systemd" / "private"), family=socket.AF_UNIX)
        self._answers, self._login = answers, login
        self.login: list[bytes] = []
        self.kind = 0
        self.fields = b""
        self.arguments: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError), self._listener.accept()[0] as connection, connection.makefile("rb") as received:
            self.login = [received.readline(), received.readline()]
            connection.sendall(self._login)
            _, self.kind, _, _, length, _, fields = HEADER.unpack(received.read(HEADER.size))
            self.fields = received.read(fields + -fields % 8)
            body = received.read(length)
            while body:
                size = struct.unpack_from("<I", body)[0]
                self.arguments.append(body[4 : 4 + size].decode())
                body = body[4 + size + 1 + -(size + 1) % 4 :]
            for answer in self._answers:
                connection.sendall(answer)
            received.read()  # until the other side closes

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


def stop(root: Path, timeout: float = 5) -> None:
    Manager(root, timeout).stop(UNIT)


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: that of a socket has at most 107 bytes."""
    return tmp_path_factory.mktemp("r")


def test_a_unit_is_stopped(root: Path) -> None:
    # Given a systemd that sends its signals to everyone, and the answer between them
    systemd = FakeSystemd(root, message(SIGNAL, b"\1" * 13, b"body"), message(METHOD_RETURN, b"\5" * 8, b"job"), message(SIGNAL))

    # When
    assert Manager(root, 5).is_reachable()
    stop(root)
    systemd.close()

    # I expect a login as this user, and one call
    assert systemd.login == [b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n", b"BEGIN\r\n"]
    assert systemd.kind == METHOD_CALL
    for part in (b"/org/freedesktop/systemd1\0", b"org.freedesktop.systemd1.Manager\0", b"StopUnit\0", b"\x02ss\0"):
        assert part in systemd.fields
    assert systemd.arguments == [UNIT, "replace"]


def test_an_unknown_unit_is_no_error(root: Path) -> None:
    systemd = FakeSystemd(root, message(ERROR, b"\4" * 16, b"Unit not loaded."))

    stop(root)
    systemd.close()


@pytest.mark.parametrize(
    ("login", "answers"),
    [
        (b"REJECTED EXTERNAL\r\n", []),
        (b"OK 0123\r\n", []),
        (b"OK 0123\r\n", [message(SIGNAL)[:-1]]),
        (b"OK 0123\r\n", [HEADER.pack(b"l", METHOD_RETURN, 1, 1, 2**31, 1, 0)]),
    ],
    ids=["refused", "silent", "too short", "too long"],
)
def test_a_failure_is_an_error(root: Path, login: bytes, answers: list[bytes]) -> None:
    systemd = FakeSystemd(root, *answers, login=login)

    with pytest.raises(OSError):  # noqa: PT011 - each is another one
        stop(root, timeout=0.2)
    systemd.close()


def test_a_systemd_that_is_gone_is_an_error(root: Path) -> None:
    assert not Manager(root, 5).is_reachable()
    with pytest.raises(OSError, match="No such file"):
        stop(root)
