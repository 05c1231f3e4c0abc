"""Tar streams made and read on the fly: the form in which an engine takes and gives files."""

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
class File:
    """A file to be packed; `chunks` give exactly `size` bytes."""

    name: str
    mode: int
    size: int
    chunks: Iterable[bytes]


def pack(directories: Iterable[str], file: File | None, owner: User) -> Iterator[bytes]:
    """A tar stream with these directories and then the file, all of them `owner`'s. Names are relative."""
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


class Unpacked:
    """The one file of a tar stream: read once, from start to end, while the stream is open."""

    def __init__(self, entry: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        self.size = entry.size if content is not None else 0
        self.regular = entry.isreg() and content is not None
        self.consumed = 0
        self._content = content

    def __len__(self) -> int:
        return self.size

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end. Raises `EngineUnavailable` where the stream ends too early."""
        if self._content is None:
            return b""
        with _readable():
            data = self._content.read(size)
        self.consumed += len(data)
        return data


@contextmanager
def unpack(chunks: Iterator[bytes]) -> Iterator[Unpacked]:
    """The file in a tar stream that has only one. Raises `EngineUnavailable` where it cannot be read."""
    with _readable():
        archive = tarfile.open(fileobj=ChunkReader(chunks), mode="r|")  # noqa: SIM115 - closed below
    with archive:
        with _readable():
            entry = archive.next()
            if entry is None:
                raise EngineUnavailable("the engine gave an archive without the file")
            content = archive.extractfile(entry) if entry.isreg() else None
        yield Unpacked(entry, content)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise EngineUnavailable(f"the engine's archive cannot be read: {error}") from error
