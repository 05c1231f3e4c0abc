"""Reads and removes control groups of an engine on this host, through the mounts of its daemon."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from jobs.engine.protocol import Usage

_NANOSECONDS: Final = 10**9
_MICROSECONDS: Final = 10**6


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """The hierarchies of control groups that a daemon has mounted, by controller; version 2 has one for all of them.

    A group is an absolute path in each of them.
    """

    unified: bool  # version 2
    cpu: Path
    memory: Path
    hierarchies: tuple[Path, ...]

    @classmethod
    def of_process(cls, process: Path, *, unified: bool) -> Self | None:
        """Return those of a process, given its directory in /proc. Return None if they are not mounted or cannot be changed."""
        try:
            mounts = list(_mounts(process, "cgroup2" if unified else "cgroup"))
        except OSError:
            return None
        by_controller = {option: mount for mount, options in mounts for option in options.split(",")}
        cpu, memory = (mounts[0][0],) * 2 if unified and mounts else (by_controller.get("cpuacct"), by_controller.get("memory"))
        if cpu is None or memory is None:
            return None
        return cls(unified, cpu, memory, tuple(dict.fromkeys(mount for mount, _ in mounts)))

    @property
    def exist(self) -> bool:
        """Whether the process through which they are seen still runs."""
        return self.memory.exists()

    def usage(self, group: str) -> Usage | None:
        """Return what the processes in a group and in those below it have used, ended ones included; None if unknown."""
        cpu, memory = _below(self.cpu, group), _below(self.memory, group)
        if self.unified:
            cpu_time, units = _value(cpu / "cpu.stat", "usage_usec"), _MICROSECONDS
            peak = _value(memory / "memory.peak")  # since Linux 5.19
        else:
            cpu_time, units = _value(cpu / "cpuacct.usage"), _NANOSECONDS
            peak = _value(memory / "memory.max_usage_in_bytes")
        if not cpu_time:  # no process was ever in it
            return None
        # Before Linux 5.11, version 1 may be set up so that groups do not count what those below them have.
        return Usage(cpu_seconds=cpu_time / units, peak_memory_bytes=peak or None)

    def has(self, group: str) -> bool:
        """Return whether a group exists."""
        return _below(self.memory, group).exists()

    def children(self, group: str) -> list[str]:
        """Return the names of the groups directly below a group."""
        try:
            return [path.name for path in _below(self.memory, group).iterdir() if path.is_dir()]
        except OSError:
            return []

    def remove(self, group: str) -> None:
        """Remove a group that has no process and no groups below it; leave any other as it is.

        The one that `children` looks at is removed last: if this process is killed meanwhile, the rest is found later.
        """
        for hierarchy in sorted(self.hierarchies, key=lambda hierarchy: hierarchy == self.memory):
            with suppress(OSError):
                _below(hierarchy, group).rmdir()


def _mounts(process: Path, file_system: str) -> Iterator[tuple[Path, str]]:
    """Yield the roots of all mounted hierarchies, seen through the process's root, with the options of each (proc(5))."""
    for line in (process / "mountinfo").read_text().splitlines():
        fields, _, details = line.partition(" - ")
        root, mount_point = fields.split()[3:5]
        kind, _, options = details.split(" ", 2)
        if kind == file_system and root == "/" and "\\" not in mount_point:
            yield process / "root" / mount_point.lstrip("/"), options


def _below(hierarchy: Path, group: str) -> Path:
    return hierarchy / group.lstrip("/")


def _value(path: Path, key: str = "") -> int | None:
    """Return the number in a file, or the one after `key`; None if it cannot be read."""
    try:
        words = path.read_text().split()
        return int(words[words.index(key) + 1 if key else 0])
    except (OSError, ValueError, IndexError):
        return None
