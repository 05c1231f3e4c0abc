"""Files that have no name any more, and occupy the disk as long as a process uses them."""

import os
import stat
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Final

_MAX_LOOKED_AT: Final = 50_000  # open files and mappings of one container
_PROC: Final = Path("/proc")


def unnamed_size(pid: int, devices: Set[int]) -> int:
    """Return the bytes on the disk of all nameless files that a process and its descendants have open or mapped.

    Only those on these devices count: others may be in memory.
    """
    found: dict[tuple[int, int], int] = {}
    for looked_at, path in enumerate(_used_by_all(pid)):
        if looked_at >= _MAX_LOOKED_AT:
            break
        try:
            seen = os.stat(path)
        except OSError:
            continue  # it was closed
        if not seen.st_nlink and stat.S_ISREG(seen.st_mode) and seen.st_dev in devices:
            found[seen.st_dev, seen.st_ino] = seen.st_blocks * 512
    return sum(found.values())


def _used_by_all(pid: int) -> Iterator[str]:
    """Yield paths in /proc that lead to what a process and its descendants have open or mapped."""
    waiting = [pid]
    while waiting:
        process = _PROC / str(waiting.pop())
        for directory in ("fd", "map_files"):
            yield from _entries(process / directory)
        for thread in _entries(process / "task"):
            try:
                waiting.extend(map(int, Path(thread, "children").read_text().split()))
            except (OSError, ValueError):
                continue


def _entries(directory: Path) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.path
    except OSError:
        return  # the process has ended
