"""Writes and reads tar streams, in which engines accept and return files, without holding a file in memory."""

import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from jobs.engine.protocol import User
from jobs.engine.tar_chunks import ChunkReader, read_entry
from jobs.errors import EngineRefused, EngineUnavailable

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

    def __init__(self, size: int, content: ChunkReader) -> None:
        """Take a file whose bytes come next in `content`."""
        self.size = size
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


def unpack(chunks: Iterator[bytes]) -> UnpackedFile:
    """Return the file in a tar stream that contains one.

    Raise `EngineUnavailable` if the stream ends too early, and `EngineRefused` if it is invalid or of another kind.
    """
    content = ChunkReader(chunks)
    entry = read_entry(content)
    if not entry.isreg():
        raise EngineRefused("the engine returned an archive without a regular file")
    return UnpackedFile(entry.size, content)
