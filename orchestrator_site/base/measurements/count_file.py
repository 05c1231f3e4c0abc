"""A file with the counts of one process. They outlive it, however it ends, because each change is written at once.

It is a sequence of records: a header, a name that is padded to a multiple of 8 bytes, and the numbers of that name. The process
holds a lock on the file, which the kernel releases when the process dies. The file is not mapped into memory: on a full disk that
would kill the process.
"""

import os
import secrets
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from orchestrator_site.base.file_locks import try_lock
from orchestrator_site.base.measurements.shared_files import make_directory, open_shared

SUFFIX: Final = ".counts"
_HEADER: Final = struct.Struct("=II")  # bytes of the name, count of numbers
_UNIT: Final = 8
_MAX_NUMBERS: Final = 256


class CountFile:
    """The file of this process. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Create it in `directory`. Raise `OSError` if that is impossible."""
        make_directory(directory)
        self._descriptor = _create_locked(directory)
        self._offsets: dict[str, int] = {}  # of the numbers of each name
        self._end = 0

    def write(self, name: str, numbers: Sequence[float]) -> None:
        """Store the numbers of a name, always as many. Raise `OSError`; the next call for this name then stores them."""
        packed = struct.pack(f"={len(numbers)}d", *numbers)
        if (offset := self._offsets.get(name)) is not None:
            os.pwrite(self._descriptor, packed, offset)
            return
        encoded = name.encode()
        head = _HEADER.pack(len(encoded), len(numbers)) + encoded + b" " * (-len(encoded) % _UNIT)
        if os.pwrite(self._descriptor, head + packed, self._end) < len(head) + len(packed):
            raise OSError("the disk is full")
        self._offsets[name] = self._end + len(head)
        self._end += len(head) + len(packed)

    def close(self) -> None:
        """Release the file: from now on it is that of a dead process."""
        os.close(self._descriptor)


def read(path: Path) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield the names and numbers of a file, nothing if there is none. A record that its process did not finish is left out."""
    try:
        data, position = path.read_bytes(), 0
    except FileNotFoundError:  # its process could not lock it, and takes another one
        return
    while position + _HEADER.size <= len(data):
        name_bytes, count = _HEADER.unpack_from(data, position)
        numbers_at = position + _HEADER.size + name_bytes + -name_bytes % _UNIT
        end = numbers_at + count * _UNIT
        if not 0 < count <= _MAX_NUMBERS or end > len(data):
            return
        name = data[position + _HEADER.size : position + _HEADER.size + name_bytes]
        yield name.decode(errors="replace"), struct.unpack_from(f"={count}d", data, numbers_at)
        position = end


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Yield whether the process of a file has ended. Inside the block nothing else decides the same."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _create_locked(directory: Path) -> int:
    while True:
        path = directory / f"{secrets.token_hex(8)}{SUFFIX}"
        descriptor = open_shared(path, os.O_EXCL)
        # Before it was locked here, it may have looked like the file of a dead process, and have been deleted.
        if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)
        with suppress(FileNotFoundError):
            path.unlink()
