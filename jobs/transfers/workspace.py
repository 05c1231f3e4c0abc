"""Paths in the workspace of a container, and writing files to them."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Final

from jobs.engine.protocol import MOUNTED_DIRECTORIES, Engine, Stat, User
from jobs.errors import EngineRefused, OutputNotFound, PathNotFound, ReadFailed, TransferFailed, WriteFailed
from jobs.transfers import tar_files
from jobs.transfers.formatting import quote_path, truncate

_ROOT: Final = User(0, 0)
_MAX_NAME_BYTES: Final = 255  # NAME_MAX and PATH_MAX of Linux: engines do not always refuse longer ones clearly
_MAX_PATH_BYTES: Final = 4095
# Engines mount these over the image when a container starts, and so hide files that were put there before.
_MOUNTED: Final = (*MOUNTED_DIRECTORIES, "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The working directory of a container, and the user who owns the files in it."""

    engine: Engine
    container: str
    path: str  # absolute
    user: User


@dataclass(frozen=True, slots=True)
class Target:
    """Where to write a file: in an existing directory, or in missing ones below it."""

    shown: str  # the path for messages
    directory: str
    missing: tuple[str, ...]  # relative to `directory`, outermost first
    name: str  # relative to `directory`


def prepare_workspace(workspace: Workspace) -> None:
    """Make the image's user the owner of the workspace and of the directories above it that were created for it.

    Engines create the working directory as root, and so the target of a dangling link in the image. Directories of the image
    keep their owner and mode.
    """
    if workspace.user == _ROOT:
        return
    levels = _prefixes(_components(workspace.engine.real_path(workspace.container, workspace.path)))
    added = workspace.engine.added_directories(workspace.container, [f"/{level}" for level in levels])
    created = [level for level in levels if f"/{level}" in added]
    if created:
        workspace.engine.put(workspace.container, "/", tar_files.pack(created, None, workspace.user))


def find_target(workspace: Workspace, path: str) -> Target:
    """Return where to write the file for `path`. Raise `WriteFailed` if it cannot be written there.

    Each directory is looked up from the root on, since engines answer a path below a file in many ways. A link in the image
    may stand for a directory; the engine resolves it inside the container.
    """
    shown = quote_path(path)
    names = _resolve(workspace, path, WriteFailed)
    _check_not_mounted(shown, _absolute(names))
    *parents, name = names
    directory = "/"
    for depth, parent in enumerate(parents):
        below = posixpath.join(directory, parent)
        found = workspace.engine.stat(workspace.container, below)
        if found is None:
            missing = _prefixes(parents[depth:])
            return Target(shown, directory, tuple(missing), posixpath.join(missing[-1], name))
        if found.kind not in ("directory", "symlink"):
            raise _not_a_directory(shown, below)
        if found.kind == "symlink":
            _check_not_mounted(shown, workspace.engine.real_path(workspace.container, _absolute(names)))
        directory = below
    found = workspace.engine.stat(workspace.container, posixpath.join(directory, name))
    if found is not None and found.kind == "directory":
        raise _cannot_write(shown, "it is a directory")
    return Target(shown, directory, (), name)


def write_file(workspace: Workspace, target: Target, mode: int, size: int, chunks: Iterable[bytes]) -> None:
    """Write a file of `size` bytes and the missing directories. Raise `WriteFailed`."""
    file = tar_files.PackedFile(target.name, mode, size, chunks)
    try:
        workspace.engine.put(workspace.container, target.directory, tar_files.pack(target.missing, file, workspace.user))
    except PathNotFound as error:
        raise _not_a_directory(target.shown, target.directory) from error
    except EngineRefused as error:
        raise _cannot_write(target.shown, truncate(str(error))) from error


def find_file(workspace: Workspace, path: str) -> tuple[str, Stat]:
    """Return the absolute path and `Stat` of the regular file at `path`. Raise `OutputNotFound` or `ReadFailed`."""
    absolute = _absolute(_resolve(workspace, path, ReadFailed))
    _check_persists(path, absolute)
    found = workspace.engine.stat(workspace.container, absolute)
    if found is None:
        _check_persists(path, workspace.engine.real_path(workspace.container, absolute))
        raise not_found(path)
    if found.kind != "file":
        kind = {"directory": "a directory", "symlink": "a symbolic link"}.get(found.kind, "a special file")
        raise ReadFailed(f"{quote_path(path)} is {kind}, not a regular file")
    if found.size == 0:  # engines leave empty files where they mount their own
        _check_persists(path, workspace.engine.real_path(workspace.container, absolute))
    return absolute, found


def not_found(path: str) -> OutputNotFound:
    return OutputNotFound(f"{quote_path(path)} does not exist")


def _cannot_write(shown: str, reason: str) -> WriteFailed:
    return WriteFailed(f"{shown} cannot be written: {reason}")


def _not_a_directory(shown: str, directory: str) -> WriteFailed:
    return _cannot_write(shown, f"{quote_path(directory)} is not a directory")


def _check_not_mounted(shown: str, path: str) -> None:
    """Raise `WriteFailed` if the process would not see a file at or below `path`."""
    if mounted := _first_above(path, _MOUNTED):
        raise _cannot_write(shown, f"the engine mounts {mounted} in every container")


def _check_persists(path: str, real: str) -> None:
    """Raise `ReadFailed` if a file at the absolute path `real` does not outlive the process."""
    if mounted := _first_above(real, MOUNTED_DIRECTORIES):
        raise ReadFailed(f"{quote_path(path)} cannot be read: files below {mounted} are lost when the process ends")


def _first_above(path: str, directories: Iterable[str]) -> str | None:
    return next((directory for directory in directories if PurePosixPath(path).is_relative_to(directory)), None)


def _resolve(workspace: Workspace, path: str, failure: type[TransferFailed]) -> list[str]:
    """Return the names from the root down to `path`. Raise `failure`; the API has refused most of these paths before."""
    names = _components(path)
    if not names:
        raise failure(f"{quote_path(path)} is not the path of a file")
    names = _components(workspace.path) + names
    if ".." in names:
        raise failure(f"{quote_path(path)} is outside the workspace")
    if any(len(name.encode()) > _MAX_NAME_BYTES for name in names) or len(_absolute(names).encode()) > _MAX_PATH_BYTES:
        limits = f"at most {_MAX_NAME_BYTES} bytes per name and {_MAX_PATH_BYTES} in total"
        raise failure(f"{quote_path(path)} is too long: it must have {limits}")
    return names


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _prefixes(names: list[str]) -> list[str]:
    """Return a, a/b, a/b/c for a, b, c."""
    return list(accumulate(names, posixpath.join))


def _absolute(names: list[str]) -> str:
    return "/" + "/".join(names)
