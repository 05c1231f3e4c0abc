"""The resource limits (setrlimit(2)) of every process in a container."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jobs.engine.docker.local_daemon import Process

# What the kernel counts per user: root in a container is the host's root to it, so jobs may use a part of what that user may.
# A core dump would be written by the host's handler, to the host's disk.
_LIMITS: Final = {"core": 0, "msgqueue": 409_600, "nofile": 65_536, "sigpending": 4096}
_NAMES: Final = {"msgqueue": "Max msgqueue size", "nofile": "Max open files", "sigpending": "Max pending signals"}  # in /proc
_ALWAYS_SET: Final = ("core",)  # anyone may lower a limit to 0
_NOT_SET: Final = "the engine cannot limit the open files, pending signals and message queues of jobs"

# How runc and crun report that they may not set one. At the beginning, before any words of a job.
_REFUSAL: Final = re.compile(r'(?:[a-z ]{1,40}: ){0,2}OCI runtime create failed: [^"]{0,200}?(?:error setting rlimit|setrlimit )')


class ResourceLimits:
    """The limits that one engine can set: one in a container, say, cannot set a higher limit than it has itself. Thread-safe."""

    def __init__(self) -> None:
        self._limits = _LIMITS
        self._are_refused = False

    def learn(self, process: Process | None) -> None:
        """Look at the limits of the engine's process on this machine. To be called when it may have been restarted."""
        self._limits = _limits_under(process)

    def warnings(self) -> list[str]:
        """Return a sentence if the engine cannot set the limits."""
        return [_NOT_SET] if self._are_refused else []

    def ulimits(self) -> list[dict[str, Any]]:
        """Return the limits as an engine's API takes them."""
        limits = {name: limit for name, limit in self._limits.items() if name in _ALWAYS_SET or not self._are_refused}
        return [{"Name": name, "Soft": limit, "Hard": limit} for name, limit in limits.items()]

    def refuses(self, message: str, ulimits: Sequence[Any]) -> bool:
        """Return whether the engine did not start a container because it cannot set these limits, and fewer will be asked for."""
        if not _REFUSAL.match(message):
            return False
        self._are_refused = True
        return len(ulimits) > len(self.ulimits())


def _limits_under(process: Process | None) -> dict[str, int]:
    """Return the limits, none higher than that of the engine's process."""
    try:
        lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines() if process else []
    except OSError:
        lines = []
    limits = dict(_LIMITS)
    for name, words in _NAMES.items():
        for line in lines:
            values = line.removeprefix(words).split()  # soft limit, hard limit, unit
            if line.startswith(words) and len(values) > 1 and values[1].isdecimal():
                limits[name] = min(limits[name], int(values[1]))
    return limits
