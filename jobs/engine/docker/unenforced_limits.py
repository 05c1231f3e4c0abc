"""Limits that every job is promised, but that a Docker engine cannot enforce."""

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

logger = logging.getLogger(__name__)

_MEMORY: Final = "the kernel cannot limit memory: a job can use all of the host's"
_SWAP: Final = "the kernel does not account for swap: a job can swap beyond its memory limit"
_CPU: Final = "the kernel cannot limit cpu: a job can use all of the host's"
_PIDS: Final = "the kernel cannot limit processes: a job can use all of the host's"
_BRIDGE: Final = "the kernel does not filter bridged traffic: jobs on one network can reach one another"
_FORWARDING: Final = "the host does not forward IPv4: jobs cannot reach other hosts"
_UNKNOWN: Final = "the engine reports a warning that this service does not know; it is in the worker's log"

_FLAGS: Final = {"MemoryLimit": _MEMORY, "SwapLimit": _SWAP, "CpuCfsQuota": _CPU, "PidsLimit": _PIDS, "BridgeNfIptables": _BRIDGE}
# From this API version on an engine filters bridged traffic when a network needs it, and the flag is always false.
_BRIDGE_FLAG_ENDS: Final = (1, 48)

# Parts of warnings, in lower case, and what each means for jobs (None: nothing). The first match counts.
_MEANINGS: Final[tuple[tuple[str, str | None], ...]] = (
    ("kernel memory", None),
    ("oom kill", None),
    ("cpu shares", None),
    ("cpuset", None),
    ("blkio", None),
    ("io.weight", None),
    ("io.max", None),
    ("bridge-nf-call", None),  # the flag says it, where the flag is reliable
    ("deprecated", None),
    ("api is accessible", None),
    ("platform", None),  # of the image, not of the engine
    ("swap limit", _SWAP),
    ("memory limit", _MEMORY),
    ("cfs quota", _CPU),
    ("cfs period", _CPU),
    ("pids limit", _PIDS),
    ("ipv4 forwarding", _FORWARDING),
)
_MAX_LOGGED: Final = 100  # different warnings


def flagged_limits(info: Mapping[str, Any], api_version: tuple[int, int]) -> list[str]:
    """Return a sentence for each limit that `GET /info` says is not enforced."""
    flags = [flag for flag in _FLAGS if flag != "BridgeNfIptables" or api_version < _BRIDGE_FLAG_ENDS]
    return [_FLAGS[flag] for flag in flags if info.get(flag) is False]


class EngineWarnings:
    """The warnings in an engine's answers. Each is logged once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self._remembered: dict[str, None] = {}

    def explain(self, warnings: Iterable[object]) -> list[str]:
        """Return a sentence for each warning that matters for jobs.

        The engine's own words may contain addresses, and `/readyz` is public.
        """
        meanings = []
        for warning in warnings:
            text = str(warning).strip()[:1000]
            meaning = next((meaning for part, meaning in _MEANINGS if part in text.lower()), _UNKNOWN)
            if text and meaning is not None:
                self._log_once(text)
                meanings.append(meaning)
        return meanings

    def remember(self, warnings: Iterable[object]) -> None:
        """Add the warnings in the answer to a container's creation to `remembered`."""
        for meaning in self.explain(warnings):
            with self._lock:
                self._remembered[meaning] = None

    def remembered(self) -> list[str]:
        with self._lock:
            return list(self._remembered)

    def _log_once(self, text: str) -> None:
        with self._lock:
            if text in self._logged or len(self._logged) >= _MAX_LOGGED:
                return
            self._logged.add(text)
        logger.warning("the engine reports a warning: %s", text)
