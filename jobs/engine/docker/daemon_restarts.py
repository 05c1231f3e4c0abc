"""Detects processes that ended because their Docker daemon, or its host, was restarted.

Docker itself reports ordinary exit codes for them. How a restart is recognized, what was measured, and which cases cannot be
told apart is in docs/adr/0007-a-restarted-engine-loses-its-processes.md.
"""

import copy
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from docker.utils import parse_host

from jobs.engine.docker.container_json import parse_time
from jobs.engine.docker.transport import TRANSPORT_ERRORS, EngineAnswer, EngineClient, engine_unavailable
from jobs.engine.protocol import Observation
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

NO_TRACE: Final = 255  # the exit code of a process of which a starting daemon finds no trace
NOT_RECORDED: Final = 0  # the exit code of a process whose daemon was killed before it recorded the end
EVENTS_KEPT: Final = 256

_DEFAULT_NETWORK: Final = "bridge"
_CREDENTIALS: Final = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user and group


class DaemonRestarts:
    """The last start of one engine, and the processes that it ended. Thread-safe.

    Each question uses a new connection: a dockerd that is stopping refuses new connections, but continues to answer on
    open ones while it ends its containers.
    """

    def __init__(self, host: str, intervals: EngineIntervals) -> None:
        self._client = EngineClient(host, intervals, keep_open=False)
        self._last_start = _LocalDaemonStart(host, intervals)

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "DaemonRestarts":
        """Return the same object with interruptible calls; see `Engine.bound`."""
        bound = copy.copy(self)
        bound._client = self._client.bound(interrupt, max_silence)
        return bound

    def ended(self, container_id: str, seen: Observation) -> bool:
        """Return whether a restart ended this process, as far as can be known. Raise `EngineUnavailable`."""
        began = self._began()
        ended_before = began is not None and seen.finished_at is not None and seen.finished_at <= began
        code_is_doubtful = seen.exit_code == NO_TRACE or (
            seen.exit_code == NOT_RECORDED and self._last_start.includes(seen.finished_at)
        )
        if not ended_before and not code_is_doubtful:
            return False
        info = self._client.call("GET", "/info")
        now = datetime.fromisoformat(info["SystemTime"])
        if info["LiveRestoreEnabled"]:
            return code_is_doubtful and not self._confirm_end(container_id, seen, now)
        return ended_before and began is not None and now >= began

    def incarnation(self) -> tuple[datetime | None, float | None]:
        """Return a value that differs after a restart, as far as it can be detected. Raise `EngineUnavailable`."""
        return self._began(), self._last_start.socket_created_at()

    def _began(self) -> datetime | None:
        """Return when the engine created its default network, which it does at each start, or None if it has none.

        This asks for the list of networks, because asking for a single one may deadlock Docker 20.10 (see the ADR).
        """
        params = {"filters": json.dumps({"name": [_DEFAULT_NETWORK]})}  # matches parts of names, too
        with self._last_start.first_answer():
            networks = self._client.call("GET", "/networks", params=params)
        return next((parse_time(network["Created"]) for network in networks or [] if network["Name"] == _DEFAULT_NETWORK), None)

    def _confirm_end(self, container_id: str, seen: Observation, now: datetime) -> bool:
        """Return whether the engine's events contain this end; exit code 0 is trusted if they do not go back far enough."""
        events = self._events(now)
        reported = any((event["Action"], event["Actor"]["ID"]) == ("die", container_id) for event in events)
        return reported or (seen.exit_code == NOT_RECORDED and len(events) == EVENTS_KEPT)

    def _events(self, until: datetime) -> list[dict[str, Any]]:
        """Return all events that the engine keeps."""
        params = {"since": "0", "until": f"{until.timestamp():.6f}"}
        with self._client.stream("GET", "/events", params=params) as answer:
            if isinstance(answer, EngineAnswer):
                raise answer.error()
            try:
                return [json.loads(line) for line in answer.iter_lines()]
            except TRANSPORT_ERRORS as error:
                raise engine_unavailable(error) from error


class _LocalDaemonStart:
    """The period in which a daemon on this machine last started: from the creation of its socket to its first answer.

    The period is unknown, and includes nothing, over TCP and for sockets that systemd or a proxy created. Thread-safe.
    """

    def __init__(self, host: str, intervals: EngineIntervals) -> None:
        scheme, _, path = str(parse_host(host)).partition("://")
        self._socket = Path(path) if scheme == "http+unix" else None
        self._timeout = intervals.local_check
        self._lock = threading.Lock()
        self._socket_created_at = 0.0
        self._answered_at = 0.0

    @contextmanager
    def first_answer(self) -> Iterator[None]:
        """Wrap a call to the engine that raises if there is no answer. The first answer at each socket ends the period."""
        created_at = self.socket_created_at()
        yield  # the daemon that answers created this socket, or a later one, whose first answer is still to come
        if created_at is None:
            return
        with self._lock:
            if created_at > self._socket_created_at:
                self._socket_created_at, self._answered_at = created_at, time.time() if self._is_dockerd() else 0.0

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

    def _is_dockerd(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self._socket))
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            process = _CREDENTIALS.unpack(credentials)[0]
            return Path(f"/proc/{process}/comm").read_text().strip() == "dockerd"
        except OSError:
            return False
