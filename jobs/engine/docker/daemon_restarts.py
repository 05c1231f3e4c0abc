"""Which processes ended because their Docker daemon, or its host, was stopped and started again.

A daemon that stops ends its containers, one that starts ends those that it finds alive, and all that Docker keeps of either
is an ordinary exit code: 143, 137 where SIGTERM was ignored, 0 where it was caught, 255 where a power cut left no trace
of the process (docs/adr/0007-a-restarted-engine-loses-its-processes.md has what was measured). What tells is the time at
which the engine began: at each start dockerd makes its default network `bridge` anew, after it has settled what became of its
containers and before it answers anybody. Who had ended by then counts as lost, unless live-restore lets processes outlive a
daemon: then the code is the process's own, if it is not the 255.

Under live-restore the network stays where containers run on, and a 255 may be the process's own. It is where the engine tells
of that end among its latest 256 events, which begin anew with each start. A daemon that was killed just as it took note of an
end says 0 after its next start, whatever the process had said. That is looked for where the daemon's own start shows,
by the socket that it makes before it settles what became of its containers.

What cannot be told, and where the exit code is believed: an engine without a default network (`"bridge": "none"`), one
whose clock says that it has yet to begin, because it was put back, one where live-restore was turned on by this very start, and
under live-restore the 0 of an engine that is reached over TCP or by a socket of systemd's, or of which 256 events came later.
Two are taken for lost though they may not be: a process that had ended by itself before the restart, and under
live-restore one whose own code is 255 and that is looked at after 256 more events.
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

from jobs.engine.docker.container_json import moment
from jobs.engine.docker.transport.api_client import EngineAnswer, EngineConnection, transport_errors, unavailable
from jobs.engine.protocol import Observation
from jobs.interrupt import Interrupt

NO_TRACE: Final = 255  # the exit code of a process of which a starting daemon finds nothing
NOT_NOTED: Final = 0  # and of one of which the daemon before it had been told, but had not taken note
EVENTS_KEPT: Final = 256

_DEFAULT_NETWORK = "bridge"
_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user and group
_LOCAL_SECONDS = 10.0


class Restarts:
    """What one engine's last start has ended. Thread-safe.

    It asks over a new connection each time. A dockerd that is told to stop first closes its socket and then ends its
    containers, while connections that are open already are answered to the last: one of those told of an exit code 143
    where a new one was refused for 4 s (measured). So whoever sees an ended process and is then let in knows that the
    stop came, or will come, after that end.
    """

    def __init__(self, host: str) -> None:
        self._connection = EngineConnection(host, keep_open=False)
        self._start = _Start(host)

    def bound(self, interrupt: Interrupt, patience: float | None) -> "Restarts":
        """The same; see `Engine.bound`."""
        bound = copy.copy(self)
        bound._connection = self._connection.bound(interrupt, patience)
        return bound

    def ended(self, container_id: str, seen: Observation) -> bool:
        """Whether that is how this process ended, for all that can be known. Raises `EngineUnavailable`."""
        began = self._began()
        ended_before = began is not None and seen.finished_at is not None and seen.finished_at <= began
        may_be_made_up = seen.exit_code == NO_TRACE or (seen.exit_code == NOT_NOTED and self._start.includes(seen.finished_at))
        if not ended_before and not may_be_made_up:
            return False
        said = self._connection.call("GET", "/info")
        now = datetime.fromisoformat(said["SystemTime"])
        if said["LiveRestoreEnabled"]:
            return may_be_made_up and not self._may_have_followed(container_id, seen, now)
        return ended_before and began is not None and now >= began

    def incarnation(self) -> tuple[datetime | None, float | None]:
        """What differs after a restart of the engine, as far as it tells. Raises `EngineUnavailable`."""
        return self._began(), self._start.made_at()

    def _began(self) -> datetime | None:
        """When the engine began, where it tells.

        Asked of the list of networks. An answer about one has all of its containers, for which Docker locks networks again and
        again while others leave them: many such questions at once are what brings out a deadlock of Docker 20.10's
        (https://github.com/moby/libnetwork/pull/2679).
        """
        params = {"filters": json.dumps({"name": [_DEFAULT_NETWORK]})}  # a part of the name is enough for Docker
        with self._start.first_answer():
            networks = self._connection.call("GET", "/networks", params=params)
        return next((moment(network["Created"]) for network in networks or [] if network["Name"] == _DEFAULT_NETWORK), None)

    def _may_have_followed(self, container_id: str, seen: Observation, now: datetime) -> bool:
        """Whether the engine's events have that end; a good code gets the benefit of the doubt where they do not reach back."""
        events = self._events(now)
        told = any((event["Action"], event["Actor"]["ID"]) == ("die", container_id) for event in events)
        return told or (seen.exit_code == NOT_NOTED and len(events) == EVENTS_KEPT)

    def _events(self, until: datetime) -> list[dict[str, Any]]:
        """All that the engine keeps."""
        params = {"since": "0", "until": f"{until.timestamp():.6f}"}
        with self._connection.stream("GET", "/events", params=params) as answer:
            if isinstance(answer, EngineAnswer):
                raise answer.error()
            try:
                return [json.loads(line) for line in answer.iter_lines()]
            except transport_errors() as error:
                raise unavailable(error) from error


class _Start:
    """The time that a daemon of this machine took to start: from the making of its socket to its first answer. Thread-safe.

    Empty where that cannot be known: over TCP, and where a socket is older than who answers, as systemd's or a proxy's is.
    """

    def __init__(self, host: str) -> None:
        scheme, _, path = str(parse_host(host)).partition("://")
        self._socket = Path(path) if scheme == "http+unix" else None
        self._lock = threading.Lock()
        self._made = 0.0
        self._answered = 0.0

    @contextmanager
    def first_answer(self) -> Iterator[None]:
        """Around a call that raises where it is not answered: the first one at each socket counts as the first answer."""
        made = self.made_at()
        yield  # whoever answers has made this socket, or a later one that will have a first answer of its own
        if made is None:
            return
        with self._lock:
            if made > self._made:
                self._made, self._answered = made, time.time() if self._is_dockerds() else 0.0

    def includes(self, then: datetime | None) -> bool:
        """Whether that lies within the latest start."""
        with self._lock:
            return then is not None and self._made <= then.timestamp() <= self._answered

    def made_at(self) -> float | None:
        """When the socket was made, None where there is none here."""
        try:
            return self._socket.stat().st_ctime if self._socket else None
        except OSError:
            return None

    def _is_dockerds(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_LOCAL_SECONDS)
                connection.connect(str(self._socket))
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            process = _CREDENTIALS.unpack(credentials)[0]
            return Path(f"/proc/{process}/comm").read_text().strip() == "dockerd"
        except OSError:
            return False
