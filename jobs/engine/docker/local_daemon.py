"""The process that listens on the engine's unix socket, if it is a dockerd of this machine."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from docker.utils import parse_host

from orchestrator_site.base.intervals import EngineIntervals

_CREDENTIALS: Final = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user and group
_DAEMON, _SYSTEMD = "dockerd", "systemd"
_START_TIME: Final = 19  # the index in /proc/<pid>/stat, counted after the name in parentheses (proc(5), field 22)


@dataclass(frozen=True, slots=True)
class Process:
    """A process. Its id alone may be used again."""

    pid: int
    started: str  # in the kernel's ticks since the machine was booted


@dataclass(frozen=True, slots=True)
class Listener:
    """The process that made the engine's socket and its name, both empty if they are unknown."""

    name: str = ""
    process: Process | None = None

    @property
    def daemon(self) -> Process | None:
        """The process if it is dockerd, which accepts the connections."""
        return self.process if self.name == _DAEMON else None

    @property
    def neighbour(self) -> Process | None:
        """The process if it sees the same files as the daemon: the daemon itself, or systemd if that made the socket."""
        return self.process if self.name in (_DAEMON, _SYSTEMD) else None


class LocalDaemon:
    """The daemon behind a unix socket, and the period in which it last started. Thread-safe.

    Nothing is known over TCP and for sockets that systemd or a proxy created.
    """

    def __init__(self, host: str, intervals: EngineIntervals) -> None:
        scheme, _, path = str(parse_host(host)).partition("://")
        self._socket = Path(path) if scheme == "http+unix" else None
        self.timeout = intervals.local_check  # seconds, for its socket
        self._lock = threading.Lock()
        self._socket_created_at = 0.0
        self._answered_at = 0.0
        # When the default network was created, and under which process that was asked (see `DaemonRestarts`).
        self.network_created: tuple[Process | None, datetime | None] = None, None

    @contextmanager
    def first_answer(self) -> Iterator[None]:
        """Wrap a call to the engine that raises if there is no answer.

        A start lasts from the creation of the socket to the first answer there.
        """
        created_at = self.socket_created_at()
        yield  # the daemon that answers created this socket, or a later one, whose first answer is still to come
        if created_at is None:
            return
        with self._lock:
            if created_at > self._socket_created_at:
                self._socket_created_at, self._answered_at = created_at, time.time() if self.process() else 0.0

    def includes(self, moment: datetime | None) -> bool:
        """Return whether a time lies within the latest start."""
        with self._lock:
            return moment is not None and self._socket_created_at <= moment.timestamp() <= self._answered_at

    def socket_created_at(self) -> float | None:
        """Return when the socket was created (seconds since the epoch), or None if there is no local socket."""
        try:
            return self._socket.stat().st_ctime if self._socket else None
        except OSError:
            return None

    def process(self) -> Process | None:
        """Return the dockerd that accepts connections on the socket now, or None if that is unknown or there is none."""
        return self.listener().daemon

    def listener(self) -> Listener:
        """Return the process that made the socket. Connects to it."""
        if self._socket is None:
            return Listener()
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self.timeout)
                connection.connect(str(self._socket))
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid = _CREDENTIALS.unpack(credentials)[0]
            name, _, fields = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
        except OSError:  # also if it is in another PID namespace, in which a container may have the socket
            return Listener()
        return Listener(name, Process(pid, fields.split()[_START_TIME]))
