"""Attacks what reads archives: the outputs of jobs, and the users of images."""

from collections.abc import Iterator
from random import Random
from typing import Final

from jobs.errors import EngineRefused, EngineUnavailable
from jobs.transfers import tar_files
from tests.fuzzing.inputs import archives

_MAX_READ: Final = 17 * 1024  # bytes before the content of a file begins, besides the rest of a chunk
_MAX_TAKEN: Final = 1024**2  # of the content


def attack(random: Random) -> None:
    """Read a hostile archive: it is a file of exactly the size that it says, or the engine's fault; neither takes much."""
    archive = archives.archive(random)
    source = _Counting(archive.chunks(random))
    failure = ""
    content = b""
    try:
        file = tar_files.unpack(source)
        assert file.size >= 0
        _check_count(source)
        content = b"".join(_up_to(file, _MAX_TAKEN))
        assert len(content) == file.size or file.size > _MAX_TAKEN, "another size"
    except EngineUnavailable as error:
        failure = str(error)
        assert source.ended, "an archive that would be tried again for ever"
    except EngineRefused as error:
        failure = str(error)
        _check_count(source)
    assert archive.content is None or (content, failure) == (archive.content, ""), f"a valid archive: {failure}"


def _check_count(source: "_Counting") -> None:
    assert source.count <= _MAX_READ + source.longest, f"{source.count} bytes before the file"


class _Counting:
    """Chunks, and what was taken of them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.count = 0
        self.longest = 0
        self.ended = False
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks, None)
        if chunk is None:
            self.ended = True
            raise StopIteration
        self.count += len(chunk)
        self.longest = max(self.longest, len(chunk))
        return chunk


def _up_to(file: tar_files.UnpackedFile, limit: int) -> Iterator[memoryview]:
    for chunk in file:
        yield chunk
        limit -= len(chunk)
        if limit <= 0:
            return
