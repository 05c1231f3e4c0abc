"""Lock files of worker processes. The kernel releases a lock when its process dies, however it dies."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator_site.base.file_locks import try_lock


class WorkerLock:
    """A file that is locked from the creation of this object until `release`, or until the process dies."""

    def __init__(self, path: Path) -> None:
        """Raise `OSError` if the file cannot be created."""
        self.path = path
        self._descriptor: int | None = _create_locked(path)

    def release(self) -> None:
        """Delete the file and release the lock. Do nothing the second time."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                self.path.unlink()
            os.close(descriptor)


def is_abandoned(path: str) -> bool:
    """Return True if the lock file is on this machine and no process holds it."""
    with _locked(path) as locked:
        return locked


def remove_abandoned(paths: Iterable[Path], keep: Collection[str]) -> None:
    """Delete those of the lock files that no process holds, except the paths in `keep`."""
    for path in paths:
        with _locked(str(path)) as locked:
            if locked and str(path) not in keep:
                path.unlink(missing_ok=True)


def _create_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # `remove_abandoned` of another process may have locked or deleted the file before it was locked here.
        if try_lock(descriptor) and path.exists():
            return descriptor
        os.close(descriptor)


@contextmanager
def _locked(path: str) -> Iterator[bool]:
    """Hold the lock inside; yield False if another process holds it or the file does not exist."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False  # on another machine, or its worker is just starting or being removed
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)
