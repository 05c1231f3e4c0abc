"""Where a container writes to its engine's disk, given the engine's description of it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jobs.engine.docker.disk.storage_limit import OPTION

_OWN_FILES: Final = ("HostnamePath", "HostsPath", "ResolvConfPath")  # of the engine, but root in the container may write them
_UPPER: Final = "upperdir="


def other_paths(inspected: Mapping[str, Any]) -> list[str]:
    """Return the paths on the engine's disk, outside of its layer, to which a container can write."""
    volumes = [mount["Source"] for mount in inspected.get("Mounts") or [] if mount["Type"] == "volume" and mount["RW"]]
    return [*volumes, *filter(None, (inspected.get(key) for key in _OWN_FILES))]


def upper_of(pid: int) -> str:
    """Return the layer of a running process's root, as the kernel has mounted it; empty if it is none of an overlay.

    An engine whose images containerd keeps does not say it.
    """
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if pid else []
    except OSError:
        return ""
    roots = [line for line in lines if line.split()[4] == "/" and " - overlay " in line]
    options = roots[-1].rpartition(" ")[2].split(",") if roots else []
    return next((option.removeprefix(_UPPER) for option in options if option.startswith(f"{_UPPER}/")), "")


def size_under_quota(layer: Path, inspected: Mapping[str, Any]) -> int | None:
    """Return how much of its quota a layer uses; None if the file system does not show one.

    Under a project quota of XFS, a directory looks like a disk of that size.
    """
    asked = (inspected["HostConfig"].get("StorageOpt") or {}).get(OPTION)
    try:
        seen = os.statvfs(layer)
    except OSError:
        return None
    if not asked or not seen.f_frsize or seen.f_blocks != int(asked) // seen.f_frsize:
        return None
    return (seen.f_blocks - seen.f_bfree) * seen.f_frsize
