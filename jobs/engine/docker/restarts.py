"""Which processes ended because their Docker daemon, or its host, was stopped and started again.

A daemon that stops ends its containers, one that starts ends those that it finds alive, and all that Docker keeps of either
is an ordinary exit code: 143, 137 where SIGTERM was ignored, 0 where it was caught, 255 where a power cut left no trace
of the process (docs/adr/0007-a-restarted-engine-loses-its-processes.md has what was measured). What tells is the time at
which the engine began: at each start dockerd makes its default network `bridge` anew, after it has settled what became of its
containers and before it answers anybody. Who had ended by then counts as lost, unless live-restore lets processes outlive a
daemon: then the code is the process's own, if it is not the 255.

Under live-restore the network stays where containers run on, and a 255 may be the process's own. It is where the engine tells
of that end among its latest 256 events, which begin anew with each start.

Three things cannot be told, and the exit code is believed: where there is no default network (`"bridge": "none"`), where the
engine's clock says that it has yet to begin, because it was put back, and where live-restore was turned on by this very start.
Two are taken for lost though they may not be: a process that had ended by itself before the restart, and under
live-restore one whose own code is 255 and that is looked at after 256 more events.
"""

import json
from datetime import datetime
from http import HTTPStatus
from typing import Final

from jobs.engine.base import Observation
from jobs.engine.docker.connection import Connection
from jobs.engine.docker.containers import moment

NO_TRACE: Final = 255  # the exit code of a process of which a starting daemon finds nothing


class Restarts:
    """What one engine's last start has ended. Thread-safe.

    It asks over a new connection each time. A dockerd that is told to stop first closes its socket and then ends its
    containers, while connections that are open already are answered to the last: one of those told of an exit code 143
    where a new one was refused for 4 s (measured). So whoever sees an ended process and is then let in knows that the
    stop came, or will come, after that end.
    """

    def __init__(self, host: str) -> None:
        self._connection = Connection(host, keep_open=False)

    def ended(self, container_id: str, seen: Observation) -> bool:
        """Whether that is how this process ended, for all that can be known. Raises `EngineUnavailable`."""
        network = self._connection.exchange("GET", "/networks/bridge")
        if network.failed and network.status != HTTPStatus.NOT_FOUND:
            raise network.error()
        began = None if network.failed else moment(network.data["Created"])
        ended_before = began is not None and seen.finished_at is not None and seen.finished_at <= began
        if not ended_before and seen.exit_code != NO_TRACE:
            return False
        said = self._connection.call("GET", "/info")
        now = datetime.fromisoformat(said["SystemTime"])
        if said["LiveRestoreEnabled"]:
            return seen.exit_code == NO_TRACE and not self._tells_of_end(container_id, seen, now)
        return ended_before and began is not None and now >= began

    def _tells_of_end(self, container_id: str, seen: Observation, now: datetime) -> bool:
        params = {
            "since": str(seen.started_at.timestamp() if seen.started_at else 0),
            "until": f"{now.timestamp():.6f}",
            "filters": json.dumps({"container": [container_id], "event": ["die"]}),
        }
        return self._connection.call("GET", "/events", params=params) is not None
