"""Files below STATE_DIR that all processes of a machine use. A worker may be root while the others are not."""

import os
from contextlib import suppress
from pathlib import Path


def make_directory(path: Path) -> None:
    """Make a directory, unless it exists. Raise `OSError`."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        _share(path)


def open_shared(path: Path, flags: int = 0) -> int:
    """Open a file for reading and writing, and create it if it does not exist. Raise `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    _share(path)
    return descriptor


def _share(path: Path) -> None:
    """Give a file that root has made to the owner of its directory."""
    if os.geteuid() == 0:
        with suppress(OSError):  # it is deleted meanwhile, or this process may not
            parent = path.parent.stat()
            os.chown(path, parent.st_uid, parent.st_gid)
