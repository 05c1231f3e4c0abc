"""Where a job's files are: paths inside a container's workspace, and how a file gets to one."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Final

from jobs.engine.protocol import MOUNTED_DIRECTORIES, Engine, Stat, User
from jobs.errors import EngineRefused, OutputNotFound, PathNotFound, ReadFailed, TransferFailed, WriteFailed
from jobs.transfers import tar_files
from jobs.transfers.sentences import clipped, quoted

_ROOT: Final = User(0, 0)
_NAME_BYTES: Final = 255  # NAME_MAX and PATH_MAX of Linux: an engine's answer to more is not always a clear no
_PATH_BYTES: Final = 4095
# What engines mount over the image when a container starts: a file put there before would never be seen.
_MOUNTED: Final = (*MOUNTED_DIRECTORIES, "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Place:
    """A container's workspace, and whose the files in it are to be."""

    engine: Engine
    container: str
    workspace: str  # absolute
    user: User


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file is to be put: under the deepest directory that exists, in directories to be made."""

    shown: str
    directory: str
    missing: tuple[str, ...]  # relative to `directory`, outermost first
    name: str  # relative to `directory`


def prepare_workspace(place: Place) -> None:
    """Give the workspace to the image's user, with the directories above it that were made for it.

    Engines make the working directory themselves, as root, and where a link of the image leads to nothing they make what it
    leads to. What the image has keeps its owner and mode.
    """
    if place.user == _ROOT:
        return
    levels = _prefixes(_components(place.engine.real_path(place.container, place.workspace)))
    added = place.engine.added_directories(place.container, [f"/{level}" for level in levels])
    made = [level for level in levels if f"/{level}" in added]
    if made:
        place.engine.put(place.container, "/", tar_files.pack(made, None, place.user))


def find_target(place: Place, path: str) -> Target:
    """Where a file goes that is to be at `path`. Raises `WriteFailed` where it cannot go there.

    It goes down from the root one step at a time, since engines answer a path below a file in many ways.
    A link in the image may stand for a directory; the engine resolves it inside the container.
    """
    shown = quoted(path)
    names = _resolve(place, path, WriteFailed)
    _check_seen(shown, _absolute(names))
    *parents, name = names
    directory = "/"
    for depth, parent in enumerate(parents):
        below = posixpath.join(directory, parent)
        found = place.engine.stat(place.container, below)
        if found is None:
            missing = _prefixes(parents[depth:])
            return Target(shown, directory, tuple(missing), posixpath.join(missing[-1], name))
        if found.kind not in ("directory", "symlink"):
            raise WriteFailed(f"{shown} cannot be put there: {quoted(below)} is no directory")
        if found.kind == "symlink":
            _check_seen(shown, place.engine.real_path(place.container, _absolute(names)))
        directory = below
    found = place.engine.stat(place.container, posixpath.join(directory, name))
    if found is not None and found.kind == "directory":
        raise WriteFailed(f"{shown} cannot be put there: it is a directory")
    return Target(shown, directory, (), name)


def put(place: Place, target: Target, mode: int, size: int, chunks: Iterable[bytes]) -> None:
    """Put a file of `size` bytes there, with the directories that are missing. Raises `WriteFailed`."""
    tar = tar_files.pack(target.missing, tar_files.File(target.name, mode, size, chunks), place.user)
    try:
        place.engine.put(place.container, target.directory, tar)
    except PathNotFound as error:
        raise WriteFailed(f"{target.shown} cannot be put there: {quoted(target.directory)} leads to no directory") from error
    except EngineRefused as error:
        raise WriteFailed(f"{target.shown} cannot be put there: {clipped(str(error))}") from error


def find_file(place: Place, path: str) -> tuple[str, Stat]:
    """The absolute path of a regular file and what it is. Raises `OutputNotFound` or `ReadFailed`."""
    absolute = _absolute(_resolve(place, path, ReadFailed))
    _check_outlives(path, absolute)
    found = place.engine.stat(place.container, absolute)
    if found is None:
        _check_outlives(path, place.engine.real_path(place.container, absolute))
        raise OutputNotFound(f"{quoted(path)} does not exist")
    if found.kind != "file":
        kind = {"directory": "a directory", "symlink": "a symbolic link"}.get(found.kind, "a device or the like")
        raise ReadFailed(f"{quoted(path)} is {kind}, not a regular file")
    if found.size == 0:  # engines leave empty files where they mount their own
        _check_outlives(path, place.engine.real_path(place.container, absolute))
    return absolute, found


def _check_seen(shown: str, path: str) -> None:
    """Raise `WriteFailed` where the process would not see a file that is put at or below `path`."""
    if mounted := _first_above(path, _MOUNTED):
        raise WriteFailed(f"{shown} cannot be put there: the engine has its own {mounted} in every container")


def _check_outlives(path: str, real: str) -> None:
    """Raise `ReadFailed` where a file at `real` is gone when its process has ended."""
    if mounted := _first_above(real, MOUNTED_DIRECTORIES):
        raise ReadFailed(f"{quoted(path)} cannot be taken out: files below {mounted} end with the process")


def _first_above(path: str, directories: Iterable[str]) -> str | None:
    return next((directory for directory in directories if PurePosixPath(path).is_relative_to(directory)), None)


def _resolve(place: Place, path: str, failure: type[TransferFailed]) -> list[str]:
    """Return the names from the root down to `path`. Raises `failure`; the API has refused most of these paths before."""
    names = _components(path)
    if not names:
        raise failure(f"{quoted(path)} names no file")
    names = _components(place.workspace) + names
    if ".." in names:
        raise failure(f"{quoted(path)} leads out of the workspace")
    if any(len(name.encode()) > _NAME_BYTES for name in names) or len(_absolute(names).encode()) > _PATH_BYTES:
        raise failure(f"{quoted(path)} is too long: a name has at most {_NAME_BYTES} bytes, a path {_PATH_BYTES}")
    return names


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _prefixes(names: list[str]) -> list[str]:
    """Of a, b, c: a, a/b, a/b/c."""
    return list(accumulate(names, posixpath.join))


def _absolute(names: list[str]) -> str:
    return "/" + "/".join(names)
