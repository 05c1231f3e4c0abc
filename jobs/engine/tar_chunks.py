"""Reads tar archives that arrive in chunks."""

import io
import tarfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from jobs.errors import EngineRefused, EngineUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_HEADER_BYTES: Final = 16 * 1024  # of one entry: engines need some 9 KB for the longest names
_SPARSE: Final = "GNU.sparse."  # the beginning of records that give a file another size and layout


class ArchiveTooShort(EngineUnavailable):
    """An archive ends too early, although the engine's answer was complete."""

    def __init__(self) -> None:
        super().__init__("the engine's archive ends too early")


class ChunkReader(io.RawIOBase):
    """A file object over chunks, as `tarfile` needs it for mode `r|`. Holds one chunk at a time."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = memoryview(b"")
        self.ended = False  # a read has met the end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill `buffer`; only at the end there may be too few bytes for it."""
        target = memoryview(buffer).cast("B")
        filled = 0
        while taken := self.take(len(target) - filled):
            target[filled : filled + len(taken)] = taken
            filled += len(taken)
        return filled

    def take(self, limit: int) -> memoryview:
        """Return the next bytes without copying them: the rest of a chunk, or `limit` bytes of it; none at the end."""
        while limit and not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.ended = True
                break
            self._held = memoryview(chunk)
        taken, self._held = self._held[:limit], self._held[limit:]
        return taken


def read_entry(content: ChunkReader) -> tarfile.TarInfo:
    """Return the first entry of an archive; if it is a regular file, `content` continues with its `size` bytes.

    `tarfile` reads headers of any length and number into memory, and fails in many ways at those that are invalid. Raise
    `ArchiveTooShort`, and `EngineRefused` if it is anything that an engine never makes.
    """
    try:
        # With buffers of one block tarfile reads nothing beyond the entry's header.
        with tarfile.open(fileobj=_Header(content), mode="r|", bufsize=tarfile.BLOCKSIZE) as archive:
            entry = archive.next()
    except (tarfile.TarError, ValueError, IndexError) as error:
        if content.ended:
            raise ArchiveTooShort from error
        raise EngineRefused("the engine returned an invalid archive") from error
    if content.ended:
        raise ArchiveTooShort
    if entry is None:
        raise EngineRefused("the engine returned an archive without an entry")
    if entry.size < 0 or entry.issparse() or any(name.startswith(_SPARSE) for name in entry.pax_headers):
        raise EngineRefused("the engine returned an archive with a sparse file")
    return entry


class _Header(io.RawIOBase):
    """The beginning of an archive, of which at most `_MAX_HEADER_BYTES` can be read."""

    def __init__(self, content: ChunkReader) -> None:
        self._content = content
        self._left = _MAX_HEADER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        read = self._content.readinto(buffer)
        self._left -= read
        if self._left < 0:
            raise tarfile.ReadError("the header is too long")
        return read
