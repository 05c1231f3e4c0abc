"""A file on the worker's disk for what was received of a download."""

import errno
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jobs.errors import DiskFull, DownloadFailed
from jobs.transfers.download import Piece

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CHUNK_BYTES: Final = 256 * 1024


class Spool:
    """A file without a name for what was received so far: a crash leaves nothing of it.

    Its methods raise `DiskFull`, and `DownloadFailed` for other errors of the disk.
    """

    def __init__(self, directory: Path) -> None:
        with _translating_disk_errors():
            directory.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed by __exit__
        self.clear()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fill(self, pieces: Iterable[Piece], enough: int | None = None) -> bool:
        """Store pieces until there are `enough` bytes, and return True; return False after the last piece."""
        for piece in pieces:
            if piece.offset == 0:
                self.clear()
            self._append(piece.data)
            if enough is not None and self.size >= enough:
                return True
        return False

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            with _translating_disk_errors():
                rest = rest[self._file.write(rest) :]
        self.size += len(data)

    def clear(self) -> None:
        with _translating_disk_errors():
            self._file.seek(0)
            self._file.truncate()
        self.size = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its start."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _translating_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFull("the worker's disk is full") from error
        raise DownloadFailed(f"the download cannot be written to the worker's disk: {error.strerror}") from error
