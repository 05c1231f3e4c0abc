"""Writes and reads tar streams, in which engines accept and return files, without holding a file in memory."""

import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from jobs.engine.protocol import User
from jobs.engine.tar_chunks import ChunkReader
from jobs.errors import EngineUnavailable

_DIRECTORY_MODE: Final = 0o755
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file to pack; `chunks` yield exactly `size` bytes."""

    name: str
    mode: int
    size: int
    chunks: Iterable[bytes]


def pack(directories: Iterable[str], file: PackedFile | None, owner: User) -> Iterator[bytes]:
    """Yield a tar stream with `directories` and then `file`, all owned by `owner`. Names are relative."""
    for directory in directories:
        yield _header(directory, tarfile.DIRTYPE, _DIRECTORY_MODE, 0, owner)
    if file is not None:
        yield _header(file.name, tarfile.REGTYPE, file.mode, file.size, owner)
        yield from file.chunks
        yield bytes(-file.size % tarfile.BLOCKSIZE)
    yield _END


def _header(name: str, kind: bytes, mode: int, size: int, owner: User) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, size
    entry.uid, entry.gid = owner.uid, owner.gid
    entry.mtime = int(time.time())
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


class UnpackedFile:
    """The file in a tar stream. It can be iterated over once, while the stream is open: its chunks are never copied."""

    def __init__(self, entry: tarfile.TarInfo, content: ChunkReader) -> None:
        """Take the file of `entry`, whose content comes next in `content`. What is not a regular file counts as empty."""
        self.size = entry.size if entry.isreg() else 0
        self.consumed = 0
        self._content = content

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[memoryview]:
        """Yield the rest of the file. Raise `EngineUnavailable` if the stream ends too early."""
        while left := self.size - self.consumed:
            chunk = self._content.take(left)
            if not chunk:
                raise EngineUnavailable("the engine's archive ends in the middle of the file")
            self.consumed += len(chunk)
            yield chunk


@contextmanager
def unpack(chunks: Iterator[bytes]) -> Iterator[UnpackedFile]:
    """Yield the file in a tar stream that contains one. Raise `EngineUnavailable` if the stream is invalid."""
    content = ChunkReader(chunks)
    with _translating_errors():
        # With buffers of one block tarfile reads nothing beyond the entry's header.
        archive = tarfile.open(fileobj=content, mode="r|", bufsize=tarfile.BLOCKSIZE)  # noqa: SIM115 - closed below
    with archive:
        with _translating_errors():
            entry = archive.next()
        if entry is None:
            raise EngineUnavailable("the engine returned an archive without the file")
        yield UnpackedFile(entry, content)


@contextmanager
def _translating_errors() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise EngineUnavailable(f"the engine returned an invalid archive: {error}") from error
