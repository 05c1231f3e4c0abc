"""The directories of an engine on this machine, as its daemon sees them."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.engine.docker.local_daemon import Process
from jobs.engine.protocol import DiskSpace


class DiskOfEngine:
    """The disk on which an engine keeps its containers, if it is one of this machine. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data = ""  # the engine's root directory, as it calls it; empty until it was asked
        self._process: Process | None = None
        self._root: Path | None = None  # below which its files are seen

    def learn(self, info: Mapping[str, Any], process: Process | None) -> None:
        """Find the directories, given the answer to `GET /info` and a process of this machine that sees the engine's files."""
        with self._lock:
            self._data = str(info.get("DockerRootDir") or "")
            self._process, self._root = process, _root_of(process)

    def space(self) -> DiskSpace | None:
        """Return how full the disk is; None if it cannot be seen."""
        with self._lock:
            is_local, root, data = self._process is not None, self._root, self._data
        if not is_local or not data:
            return None
        try:
            # An unprivileged worker sees only its own mounts, in which the engine usually has the same directory.
            seen = os.statvfs(f"{root or ''}{data}")
        except OSError:
            return None  # the engine was restarted, and will be asked again in a moment
        return DiskSpace(
            size=seen.f_blocks * seen.f_frsize,
            used=(seen.f_blocks - seen.f_bfree) * seen.f_frsize,
            free=seen.f_bavail * seen.f_frsize,
            files=seen.f_files,
            files_used=seen.f_files - seen.f_ffree,
        )

    def path(self, path: str) -> Path | None:
        """Return where one of the engine's files is seen; None if this process may not read them."""
        with self._lock:
            return Path(f"{self._root}{path}") if self._root else None


def _root_of(process: Process | None) -> Path | None:
    """Return the root directory of a process, or None if this one may not look into it."""
    if process is None:
        return None
    root = Path(f"/proc/{process.pid}/root")
    try:
        os.scandir(root).close()
    except OSError:
        return None
    # As root, but without all of root's capabilities: most of what containers write could not be read.
    return root if os.geteuid() == 0 and _may_read_everything() else None


def _may_read_everything() -> bool:
    dac_read_search = 1 << 2  # capabilities(7): CAP_DAC_READ_SEARCH
    dac_override = 1 << 1
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return bool(effective & (dac_read_search | dac_override))
