"""The files of a job's pod, as `Engine` promises them. Of the container only the workspace can be reached."""

import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal, cast

from jobs.engine.kubernetes.files.mover_client import PORT, Found, MoverClient
from jobs.engine.kubernetes.files.tokens import Tokens
from jobs.engine.protocol import Stat, User
from jobs.errors import PathNotFound
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

_MAX_LINK_HOPS: Final = 16
_MAX_COMPONENTS: Final = 1024
_NO_NAMES: Final = ("", ".", "..")
_DIRECTORY: Final = Stat(4096, "directory")  # above the workspace


@dataclass(frozen=True, slots=True)
class FilesOfPod:
    """Where the files of a pod are, and how to reach them."""

    address: str  # IP address of the pod
    workspace: str
    tokens: Tokens
    port: int = PORT


class PodFiles:
    """The files of one pod. Thread-safe. All calls raise `EngineUnavailable`, and `Interrupted` if `interrupt` is set."""

    def __init__(
        self,
        files: FilesOfPod,
        intervals: EngineIntervals = EngineIntervals(),
        interrupt: Interrupt | None = None,
        max_silence: float | None = None,
    ) -> None:
        self._mover = MoverClient(files.address, files.tokens, intervals, interrupt or Interrupt(), max_silence, files.port)
        self._workspace = PurePosixPath(posixpath.normpath(files.workspace))

    def stat(self, path: str) -> Stat | None:
        """See `Engine.stat`."""
        real = self._real_place(path)
        if self._workspace.is_relative_to(real):
            found = self._mover.look(real) if str(self._workspace) == real else None
            return _DIRECTORY if found is None else _stat(found)
        found = self._found(real)
        # What is found on the way is one of the links that form a cycle.
        return None if found is None or found.path != real else _stat(found)

    def real_path(self, path: str) -> str:
        """See `Engine.real_path`. A link that leads out of the workspace is resolved, but not what is behind it."""
        real, rest, hops = "/", path, 0
        for _ in range(_MAX_COMPONENTS):
            names, rest = _plain_names(rest)
            if not names and not rest:
                return real
            wanted = posixpath.join(real, *names)
            found = self._found(wanted) if names else None
            if found is not None and found.kind == "symlink" and hops < _MAX_LINK_HOPS:
                hops += 1
                below = wanted[len(found.path) :]
                real, rest = "/", f"{posixpath.join(posixpath.dirname(found.path), found.target)}/{below}/{rest}"
            else:
                real = wanted
                if rest.startswith(".."):
                    real, rest = posixpath.dirname(real), rest[2:]
        return posixpath.normpath(posixpath.join(real, rest))

    def added_directories(self, paths: Iterable[str]) -> set[str]:
        """See `Engine.added_directories`: what is in the workspace was put there, and what is elsewhere cannot be seen."""
        inside = [path for path in paths if self._workspace in PurePosixPath(path).parents]
        return {path for path in inside if (found := self._found(path)) is not None and found.kind == "directory"}

    def put(self, directory: str, tar: Iterable[bytes]) -> None:
        """See `Engine.put`."""
        real = self.real_path(directory)
        found = self.stat(real)
        if found is None or found.kind != "directory":
            raise PathNotFound(f"there is no directory {directory}")
        self._mover.put(real, tar)

    @contextmanager
    def get(self, path: str) -> Iterator[Iterator[bytes]]:
        """See `Engine.get`."""
        with self._mover.get(self._real_place(path)) as chunks:
            yield chunks

    def user(self) -> User:
        """Return the user that the job's processes will run as. Only before they do."""
        return self._mover.user()

    def signal(self, number: int, *, first_only: bool = False) -> int:
        """Send a signal to all processes of the job, and return to how many. Only for a pod with outputs.

        With `first_only` it goes to the process that the container was started with: to our init, which passes on SIGTERM.
        """
        return self._mover.signal(number, first_only=first_only)

    def finish(self) -> None:
        """Say that all inputs are in: their helper exits, and the job starts. It is safe to say so again."""
        self._mover.finish()

    def _real_place(self, path: str) -> str:
        """Return a path with the links in its parents resolved."""
        normal = path.rstrip("/")
        parent, name = posixpath.split(normal)
        if name in _NO_NAMES:
            return self.real_path(path)
        return posixpath.join(self.real_path(parent), name)

    def _found(self, path: str) -> Found | None:
        return self._mover.look(path) if self._is_inside(path) else None

    def _is_inside(self, path: str) -> bool:
        return PurePosixPath(path).is_relative_to(self._workspace)


def _plain_names(path: str) -> tuple[list[str], str]:
    """Return the names at the beginning of a path, up to `..`, and the rest."""
    names: list[str] = []
    rest = path
    while rest:
        rest = rest.lstrip("/")
        name, _, after = rest.partition("/")
        if name == "..":
            break
        if name not in _NO_NAMES:
            names.append(name)
        rest = after
    return names, rest


def _stat(found: Found) -> Stat:
    return Stat(found.size, cast('Literal["file", "directory", "symlink", "other"]', found.kind))
