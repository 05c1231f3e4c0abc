"""Reads tar archives that arrive in chunks."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ChunkReader(io.RawIOBase):
    """A file object over chunks, as `tarfile` needs it for mode `r|`. Holds one chunk at a time."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = memoryview(b"")

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
                break
            self._held = memoryview(chunk)
        taken, self._held = self._held[:limit], self._held[limit:]
        return taken
