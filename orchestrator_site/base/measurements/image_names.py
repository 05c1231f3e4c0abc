"""Which images have series of their own: at most 100, the same in all processes of a machine. Others are counted as `other`.

The first 100 get one as they come. Later `metrics` replaces those that are used least (`orchestrator_site.ops.metrics_database`).
"""

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from orchestrator_site.base.measurements.shared_files import open_shared

MAX_IMAGES: Final = 100
OTHER: Final = "other"
_FILE: Final = "images.json"
_MAX_USED: Final = 10 * MAX_IMAGES  # in the life of a process


class ImageNames:
    """The images with series of their own, as this process knows them."""

    def __init__(self) -> None:
        self._directory: Path | None = None  # without one, this process has its own
        self._names: list[str] = []
        self._version: tuple[int, ...] = ()  # of the file that was read last
        self._used: set[str] = set()  # images that this process has counted
        self._lock = threading.Lock()

    def share(self, directory: Path) -> None:
        """Share them with all processes that use this directory."""
        self._directory = directory

    def label(self, image: str) -> str:
        """Return the image if it has a series of its own, or may get one now, else `other`."""
        with self._lock:
            try:
                if self._directory is not None:
                    self._refresh(self._directory)
                if image not in self._names and len(self._names) < MAX_IMAGES:
                    self._add(image)
            except OSError:  # the disk is full, or another process adds one at this moment
                return OTHER
            return image if image in self._names and self._has_room_for(image) else OTHER

    def _has_room_for(self, image: str) -> bool:
        """Return whether the file of this process may have series of this image. It keeps those of images that were replaced."""
        if len(self._used) < _MAX_USED:
            self._used.add(image)
        return image in self._used

    def _refresh(self, directory: Path) -> None:
        try:
            status = (directory / _FILE).stat()
        except FileNotFoundError:
            return
        version = (status.st_ino, status.st_mtime_ns)
        if version != self._version:
            self._names, self._version = read_names(directory), version

    def _add(self, image: str) -> None:
        if self._directory is None:
            self._names.append(image)
            return
        with _locked(self._directory):
            names = read_names(self._directory)
            if image not in names and len(names) < MAX_IMAGES:
                _write_names(self._directory, [*names, image])
        self._names = read_names(self._directory)


def read_names(directory: Path) -> list[str]:
    """Return the images with series of their own. Raise `OSError`."""
    try:
        names = json.loads((directory / _FILE).read_bytes())
    except FileNotFoundError:
        return []
    except ValueError:  # the machine has crashed while it was written
        return []
    return [name for name in names if isinstance(name, str)][:MAX_IMAGES] if isinstance(names, list) else []


def replace_names(directory: Path, used_most: Sequence[str]) -> None:
    """Give series to the images that are used most. Others keep theirs while there is room. Raise `OSError`."""
    with _locked(directory):
        names = read_names(directory)
        wanted = list(dict.fromkeys([*used_most[:MAX_IMAGES], *names]))[:MAX_IMAGES]
        if set(wanted) != set(names):
            _write_names(directory, wanted)


def _write_names(directory: Path, names: Sequence[str]) -> None:
    new = directory / f"{_FILE}.new"
    with open(open_shared(new, os.O_TRUNC), "w", encoding="utf-8") as file:
        json.dump(names, file, ensure_ascii=False)
    new.replace(directory / _FILE)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock. Raise `BlockingIOError` at once if another process has it: it may be frozen, and no job waits for it."""
    descriptor = open_shared(directory / f"{_FILE}.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
