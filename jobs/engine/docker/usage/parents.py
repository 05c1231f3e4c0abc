"""The names of parent control groups, as each driver of the engine takes them and as they are in the file system."""

from pathlib import Path
from typing import Final, Protocol

from jobs.engine.docker.usage import systemd

_SUFFIX: Final = ".slice"
_ROOT: Final = "-.slice"


class Parents(Protocol):
    """Parents below the one that the daemon uses for all of its containers. A parent has the name of its container."""

    def reference(self, name: str) -> str:
        """Return what a container's host configuration calls its parent."""

    def includes(self, reference: str) -> bool:
        """Return whether a parent in a host configuration is one of these."""

    def group(self, reference: str) -> str:
        """Return the path of a parent in each hierarchy."""

    def all_group(self) -> str:
        """Return the path of the group that they are below."""

    def name(self, directory: str) -> str | None:
        """Return the name of the container whose parent is in this directory of that group; None for other groups."""

    def release(self, reference: str) -> None:
        """Let its maker forget a parent in which nothing runs any more. Raise `OSError`."""


class DirectoryParents:
    """Parents for the driver `cgroupfs`: the runtime makes directories, and keeps no book of them."""

    def __init__(self, above: str) -> None:
        self._above = above or "/docker"
        # Others are relative to the daemon's own group.
        self.usable = self._above.startswith("/")

    def reference(self, name: str) -> str:
        return f"{self._above}/{name}"

    def includes(self, reference: str) -> bool:
        return reference.startswith(f"{self._above}/")

    def group(self, reference: str) -> str:
        return reference

    def all_group(self) -> str:
        return self._above

    def name(self, directory: str) -> str | None:
        return directory

    def release(self, reference: str) -> None:
        """Do nothing."""


class SliceParents:
    """Parents for the driver `systemd`, which are its units: it starts them with a container, and stops them only on request.

    If only their directories were removed, it would hold them for active for ever.
    """

    def __init__(self, above: str, root: Path, timeout: float) -> None:
        """`root` is the root directory of the daemon, where systemd's socket is. `timeout` is in seconds."""
        self._above = above or "system.slice"
        self._prefix = "" if self._above == _ROOT else f"{self._above.removesuffix(_SUFFIX)}-"
        self._manager = systemd.Manager(root, timeout)
        self.usable = self._above.endswith(_SUFFIX) and "/" not in self._above and self._manager.is_reachable()

    def reference(self, name: str) -> str:
        return self._prefix + name.replace("-", r"\x2d") + _SUFFIX

    def includes(self, reference: str) -> bool:
        return self._is_below(reference)

    def group(self, reference: str) -> str:
        words = reference.removesuffix(_SUFFIX).split("-")
        return "".join(f"/{'-'.join(words[:count])}{_SUFFIX}" for count in range(1, len(words) + 1))

    def all_group(self) -> str:
        return "/" if self._above == _ROOT else self.group(self._above)

    def name(self, directory: str) -> str | None:
        if not self._is_below(directory):
            return None
        return directory.removeprefix(self._prefix).removesuffix(_SUFFIX).replace(r"\x2d", "-")

    def release(self, reference: str) -> None:
        self._manager.stop(reference)

    def _is_below(self, name: str) -> bool:
        between = name.removeprefix(self._prefix).removesuffix(_SUFFIX)
        return name.startswith(self._prefix) and name.endswith(_SUFFIX) and bool(between) and "-" not in between
