"""Detects processes that ended because their Docker daemon, or its host, was restarted.

Docker itself reports ordinary exit codes for them. How a restart is recognized, what was measured, and which cases cannot be
told apart is in docs/adr/0007-a-restarted-engine-loses-its-processes.md.
"""

import copy
import json
from datetime import datetime
from typing import Any, Final

from jobs.engine.docker.container_json import parse_time
from jobs.engine.docker.local_daemon import LocalDaemon
from jobs.engine.docker.transport import TRANSPORT_ERRORS, EngineAnswer, EngineClient, engine_unavailable
from jobs.engine.protocol import Observation
from jobs.interrupt import Interrupt

NO_TRACE: Final = 255  # the exit code of a process of which a starting daemon finds no trace
NOT_RECORDED: Final = 0  # the exit code of a process whose daemon was killed before it recorded the end
EVENTS_KEPT: Final = 256

_DEFAULT_NETWORK: Final = "bridge"


class DaemonRestarts:
    """The last start of one engine, and the processes that it ended. Thread-safe.

    Each question uses a new connection: a dockerd that is stopping refuses new connections, but continues to answer on
    open ones while it ends its containers.
    """

    def __init__(self, client: EngineClient, local: LocalDaemon) -> None:
        """`client` must open a connection for each call."""
        self._client = client
        self._local = local

    def bound(self, interrupt: Interrupt) -> "DaemonRestarts":
        """Return the same object with interruptible calls; see `Engine.bound`."""
        return self.using(self._client.bound(interrupt))

    def using(self, client: EngineClient) -> "DaemonRestarts":
        """Return the same object, asking through another client."""
        restarts = copy.copy(self)
        restarts._client = client
        return restarts

    def ended(self, container_id: str, seen: Observation) -> bool:
        """Return whether a restart ended this process, as far as can be known. Raise `EngineUnavailable`."""
        began = self._began()
        ended_before = began is not None and seen.finished_at is not None and seen.finished_at <= began
        code_is_doubtful = seen.exit_code == NO_TRACE or (
            seen.exit_code == NOT_RECORDED and self._local.includes(seen.finished_at)
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
        return self._began(), self._local.socket_created_at()

    def _began(self) -> datetime | None:
        """Return when the engine created its default network, which it does at each start, or None if it has none.

        One answer serves as long as the same process listens on the engine's socket. Else this asks for the list of networks,
        because asking for a single one may deadlock Docker 20.10 (see the ADR).
        """
        process = self._local.process()  # by a new connection, which is as good as a question
        known, began = self._local.network_created
        if process is not None and process == known:
            return began
        params = {"filters": json.dumps({"name": [_DEFAULT_NETWORK]})}  # matches parts of names, too
        with self._local.first_answer():
            networks = self._client.call("GET", "/networks", params=params)
        began = next((parse_time(network["Created"]) for network in networks or [] if network["Name"] == _DEFAULT_NETWORK), None)
        # If a later process has answered, this one does not come back, and neither is the answer used.
        self._local.network_created = process, began
        return began

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
