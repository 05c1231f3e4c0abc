"""Writes and reads tar streams, in which engines accept and return files, without holding a file in memory."""

import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

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
    """The file in a tar stream. It can be read once, while the stream is open."""

    def __init__(self, entry: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        self.size = entry.size if content is not None else 0
        self.consumed = 0
        self._content = content

    def __len__(self) -> int:
        return self.size

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, none at the end. Raise `EngineUnavailable` if the stream ends too early."""
        if self._content is None:
            return b""
        with _translating_errors():
            data = self._content.read(size)
        self.consumed += len(data)
        return data


@contextmanager
def unpack(chunks: Iterator[bytes]) -> Iterator[UnpackedFile]:
    """Yield the file in a tar stream that contains one. Raise `EngineUnavailable` if the stream is invalid."""
    with _translating_errors():
        archive = tarfile.open(fileobj=ChunkReader(chunks), mode="r|")  # noqa: SIM115 - closed below
    with archive:
        with _translating_errors():
            entry = archive.next()
            if entry is None:
                raise EngineUnavailable("the engine returned an archive without the file")
            content = archive.extractfile(entry) if entry.isreg() else None
        yield UnpackedFile(entry, content)


@contextmanager
def _translating_errors() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise EngineUnavailable(f"the engine returned an invalid archive: {error}") from error
