"""The first entry of archives that no engine makes: few bytes are read, and it is clear whether to try again."""

import io
import itertools
import tarfile
from collections.abc import Iterator

import pytest

from jobs.engine.tar_chunks import ChunkReader, read_entry
from jobs.errors import EngineRefused, EngineUnavailable

pytestmark = pytest.mark.stateless

BLOCK = tarfile.BLOCKSIZE


def header(name: str = "a", kind: bytes = tarfile.REGTYPE, size: int = 5, **records: str) -> bytes:
    """Return the headers of an entry, with PAX records if there are any."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT)


def extension(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """Return a header that stands for the next one, with its data."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % BLOCK)


def old_sparse() -> bytes:
    block = bytearray(header(kind=tarfile.GNUTYPE_SPARSE))
    block[386:398], block[398:410], block[483:495] = b"00000000000\0", b"00000001000\0", b"00000100000\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [1, 100, BLOCK, 10_000])
@pytest.mark.parametrize("name", ["a", "a" * 255, "é" * 127, "a/" * 2000, "\udcff" * 255])
def test_the_content_follows_the_entry(name: str, size: int) -> None:
    # Given an archive with a file of any name, in chunks of any size
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        info = tarfile.TarInfo(name)
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    data = file.getvalue()
    content = ChunkReader(data[at : at + size] for at in range(0, len(data), size))

    # When its entry is read, I expect the file to come next
    assert read_entry(content).isreg()
    assert content.read(5) == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        extension(tarfile.XHDTYPE, b"", 2**40),
        extension(tarfile.XGLTYPE, b"", 2**40),
        extension(tarfile.GNUTYPE_LONGNAME, b"", 2**40),
        extension(tarfile.XHDTYPE, b"20 comment=aaaaaaaa\n") * 10_000,
        extension(tarfile.GNUTYPE_LONGLINK, b"a") * 10_000,
        extension(tarfile.XHDTYPE, b"9" * 5000 + b" a=b\n") + header(),
        extension(tarfile.XHDTYPE, b"22 hdrcharset=\xff\xfe\xff\xfe\n") + header(),
        header(**{"GNU.sparse.size": "x"}),
        header(**{"GNU.sparse.realsize": "7"}),
        header(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"})
        + b"1\n0\n5\n".ljust(BLOCK, b"\0"),
        header(size=-1),
        extension(tarfile.XHDTYPE, b"11 size=-1\n") + header(),
        old_sparse(),
        bytes(2 * BLOCK),
        b"\x1f\x8b\x08\0" * BLOCK,
    ],
    ids=[
        *("PAX header", "global header", "long name", "many PAX headers", "many long links", "length of a record", "encoding"),
        *(
            "sparse size",
            "sparse realsize",
            "sparse 1.0",
            "negative size",
            "negative PAX size",
            "old sparse",
            "empty",
            "compressed",
        ),
    ],
)
def test_what_no_engine_makes_is_refused_after_a_few_bytes(data: bytes) -> None:
    # Given such an archive, and many bytes after it
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for chunk in itertools.chain(
            (data[at : at + BLOCK] for at in range(0, len(data), BLOCK)), itertools.repeat(b"\x01" * BLOCK, 1000)
        ):
            read += len(chunk)
            yield chunk

    # When it is read, I expect that it is refused, and will not be tried again
    with pytest.raises(EngineRefused, match="the engine returned an"):
        read_entry(ChunkReader(chunks()))
    assert read <= 17 * 1024


@pytest.mark.parametrize(
    "data", [b"", header()[:100], extension(tarfile.XHDTYPE, b"11 size=5\n"), extension(tarfile.GNUTYPE_LONGNAME, b"a", 600)]
)
def test_an_archive_that_ends_too_early_is_tried_again(data: bytes) -> None:
    with pytest.raises(EngineUnavailable, match="ends too early"):
        read_entry(ChunkReader([data]))
