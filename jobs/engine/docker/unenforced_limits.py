"""What a Docker engine does not enforce of the limits that every job is promised."""

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

logger = logging.getLogger(__name__)

_MEMORY: Final = "the kernel cannot limit memory: a job can take all of the host's"
_SWAP: Final = "the kernel does not account for swap: a job can swap beyond its memory limit"
_CPU: Final = "the kernel cannot limit cpu: a job can take all of the host's"
_PIDS: Final = "the kernel cannot limit processes: a job can take all of the host's"
_BRIDGE: Final = "the kernel does not filter bridged traffic: jobs on one network can reach one another"
_FORWARDING: Final = "the host does not forward IPv4: jobs cannot reach other hosts"
_UNKNOWN: Final = "the engine gives a warning that this service does not know; the worker's log has its words"

_FLAGS: Final = {"MemoryLimit": _MEMORY, "SwapLimit": _SWAP, "CpuCfsQuota": _CPU, "PidsLimit": _PIDS, "BridgeNfIptables": _BRIDGE}
# From this API version on an engine filters bridged traffic when a network needs it, and the field is always false.
_BRIDGE_FIELD_ENDS: Final = (1, 48)

# Parts of warnings, in lower case, and what each means for jobs; the first that fits counts. None: nothing.
_MEANINGS: Final[tuple[tuple[str, str | None], ...]] = (
    ("kernel memory", None),
    ("oom kill", None),
    ("cpu shares", None),
    ("cpuset", None),
    ("blkio", None),
    ("io.weight", None),
    ("io.max", None),
    ("bridge-nf-call", None),  # the flag says it, where it can be believed
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
_MOST_LOGGED: Final = 100  # different warnings


def flagged(info: Mapping[str, Any], api_version: tuple[int, int]) -> list[str]:
    """What the fields of `GET /info` say, one sentence for each limit."""
    flags = [flag for flag in _FLAGS if flag != "BridgeNfIptables" or api_version < _BRIDGE_FIELD_ENDS]
    return [_FLAGS[flag] for flag in flags if info.get(flag) is False]


class Warnings:
    """The warnings that come with an engine's answers, each logged once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged: set[str] = set()
        self._kept: dict[str, None] = {}

    def read(self, warnings: Iterable[object]) -> list[str]:
        """What they mean for jobs, without those that mean nothing.

        In our own words: an engine's may hold addresses, and `/readyz` shows these to anybody.
        """
        meanings = []
        for warning in warnings:
            text = str(warning).strip()[:1000]
            meaning = next((meaning for part, meaning in _MEANINGS if part in text.lower()), _UNKNOWN)
            if text and meaning is not None:
                self._log_once(text)
                meanings.append(meaning)
        return meanings

    def keep(self, warnings: Iterable[object]) -> None:
        """Remember what those of a container say of its engine."""
        for meaning in self.read(warnings):
            with self._lock:
                self._kept[meaning] = None

    def kept(self) -> list[str]:
        with self._lock:
            return list(self._kept)

    def _log_once(self, text: str) -> None:
        with self._lock:
            if text in self._logged or len(self._logged) >= _MOST_LOGGED:
                return
            self._logged.add(text)
        logger.warning("the engine warns: %s", text)
