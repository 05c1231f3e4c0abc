"""Tar archives as an engine never sends them: hostile names and sizes, special files, headers without end, damage."""

import gzip
import io
import itertools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

NAMES: Final = (
    *(
        b"file",
        b"/etc/passwd",
        b"../../up",
        b"./.",
        b"",
        b"a\0b",
        b"a" * 100,
        b"\xff\xfe",
        b"a\nb",
        b"CON",
        b"a/" * 49,
        b"\xed\xa0\x80",
    ),
    *("é".encode(), "\u202e".encode()),
)
LONG_NAMES: Final = (b"a" * 255, b"\xff" * 255, b"d/" * 600, b"../" * 1000, b"a" * 70_000, b"\0", b"")
# Also what no archive may have: an unknown kind, and a damaged one.
KINDS: Final = (*(b"0",) * 6, *(bytes([kind]) for kind in b"1234567SgxXLKVMNDA\0\xffz"))
SIZES: Final = (0, 1, 511, 512, 513, 4096, 70_000, 8**11 - 1, 2**40, 2**63, 2**64 + 5)
FIELDS: Final = (
    b"zzzzzzzzzzz",
    b"-0000000001",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"\xff" + b"\0" * 11,
    b"1 2\0",
    b" " * 12,
    b"\0" * 12,
    b"9" * 12,
)
RECORDS: Final = (
    *((b"path", name) for name in LONG_NAMES),
    *((b"linkpath", name) for name in LONG_NAMES),
    *(
        (b"size", value)
        for value in (b"0", b"1", b"-1", b"1e3", b"x", b"", b"9" * 30, b"9" * 5000, b"1_0", b" 5", b"\xd9\xa3", b"99999999999")
    ),
    *((b"mtime", value) for value in (b"1e400", b"nan", b"-1e300", b"0.5", b"x", b"9" * 400)),
    *((b"uid", value) for value in (b"-1", b"9" * 50, b"x")),
    *((b"hdrcharset", value) for value in (b"BINARY", b"\xff\xfe", b"zlib", b"UTF-16")),
    (b"GNU.sparse.map", b"0,1,5"),
    (b"GNU.sparse.map", b"x"),
    (b"GNU.sparse.size", b"x"),
    (b"GNU.sparse.size", b"1000"),
    (b"GNU.sparse.realsize", b"-5"),
    (b"GNU.sparse.name", b"\xff"),
    (b"GNU.sparse.offset", b"99999999999999999999"),
    (b"GNU.sparse.numbytes", b"-1"),
    (b"SCHILY.xattr.security.capability", bytes(range(256))),
    (b"", b""),
    (b"comment", b"c" * 100_000),
)
_SPARSE_1_0: Final = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"100000"))
_MAX_CHAIN: Final = 3000
_ENDLESS_CHUNKS: Final = 4096  # of 64 KiB: what counts as endless


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive; `content` is that of its first file, if it is valid and that is a regular one."""

    data: bytes
    content: bytes | None = None
    is_endless: bool = False

    def chunks(self, random: Random) -> Iterator[bytes]:
        """Yield the archive in pieces, some of them empty, and zeros after one that is endless."""
        size = random.choice((1, 100, 512, 513, 10_000, 100_000_000))
        if size * 20_000 < len(self.data):
            size = 10_000
        for at in range(0, len(self.data), size):
            yield self.data[at : at + size]
            if random.random() < 0.01:
                yield b""
        if self.is_endless:
            yield from itertools.repeat(bytes(64 * 1024), _ENDLESS_CHUNKS)


def archive(random: Random) -> Archive:
    match random.randrange(10):
        case 0 | 1:
            return valid(random)
        case 2:
            data = valid(random).data
            return Archive(data[: random.randrange(len(data))])
        case 3:
            return Archive(damaged(random, valid(random).data))
        case 4:
            data = random.choice(
                (b"", bytes(512), bytes(10240), random.randbytes(512), random.randbytes(3000), b"\x1f\x8b\x08\0" * 200)
            )
            return Archive(random.choice((data, gzip.compress(valid(random).data))))
        case 5:
            return chain(random)
        case 6:
            return sparse(random)
    data = b"".join(entry(random) for _ in range(random.choice((1, 1, 2, 5))))
    return Archive(damaged(random, data) if random.random() < 0.2 else data, is_endless=random.random() < 0.3)


def valid(random: Random) -> Archive:
    """Return an archive that any program can read, with names that are as unusual as file systems allow."""
    content = random.randbytes(random.choice((0, 1, 511, 512, 513, 70_000)))
    info = tarfile.TarInfo(random.choice(NAMES + LONG_NAMES[:3]).replace(b"\0", b"").decode("utf-8", "surrogateescape") or "x")
    info.size = len(content)
    info.mtime = random.choice((0, 1, 2**33, -1, 0.5))
    info.mode = random.choice((0o644, 0o7777, 0))
    file = io.BytesIO()
    format_ = random.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=file, mode="w", format=format_, errors="surrogateescape") as tar:
        tar.addfile(info, io.BytesIO(content))
        if random.random() < 0.3:
            tar.addfile(tarfile.TarInfo("second"))
    return Archive(file.getvalue(), content)


def chain(random: Random) -> Archive:
    """Return headers that all stand for the one after them, each of which may announce very much."""
    kind = random.choice((b"x", b"g", b"L", b"K", b"X"))
    count = random.choice((2, 50, 400, _MAX_CHAIN))
    if random.random() < 0.4:
        return Archive(header(random, kind=kind, size=random.choice((10**6, 2**30, 2**40))), is_endless=True)
    data = record(b"comment", b"c" * 400) if kind in b"xgX" else b"a" * 500
    return Archive(
        (header(random, kind=kind, size=len(data)) + padded(data)) * count + header(random), is_endless=random.random() < 0.5
    )


def sparse(random: Random) -> Archive:
    """Return a sparse file, in GNU's old format or that of PAX."""
    if random.random() < 0.5:
        records = [*_SPARSE_1_0, *random.choices(RECORDS, k=random.randrange(3))]
        return Archive(
            pax(random, records)
            + header(random, kind=b"0", size=1024)
            + padded(b"2\n0\n512\n1000\n512\n")
            + random.randbytes(512)
        )
    block = bytearray(header(random, kind=b"S", size=512))
    for number in range(4):
        block[386 + number * 24 : 410 + number * 24] = b"%011o\0%011o\0" % (number * 1000, random.choice((0, 100, 8**10)))
    block[482] = random.randrange(2)  # more of them follow
    block[483:495] = random.choice((b"00000303240\0", b"\x80" + b"\xff" * 11))
    return Archive(checked(block) + bytes([1]) * random.choice((0, 512, 5120)), is_endless=random.random() < 0.3)


def entry(random: Random) -> bytes:
    """Return an entry with all that comes before and after its header."""
    before = pax(random, random.choices(RECORDS, k=random.choice((1, 1, 3, 20)))) if random.random() < 0.5 else b""
    if random.random() < 0.2:
        name = random.choice(LONG_NAMES)
        before += header(random, kind=random.choice((b"L", b"K")), size=len(name)) + padded(name)
    return before + header(random) + padded(random.randbytes(random.choice((0, 100, 1000))))


def pax(random: Random, records: list[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(record(*one) for one in records)
    if random.random() < 0.2:
        data = (
            random.choice((b"999999999999 path=x\n", b"0 path=x\n", b"5 a", b"-3 a=b\n", b"1 a=b\n", b"9" * 5000 + b" a=b\n"))
            + data
        )
    return header(random, kind=random.choice((b"x", b"x", b"g")), size=len(data)) + padded(data)


def record(name: bytes, value: bytes) -> bytes:
    length = len(name) + len(value) + 3
    while len(b"%d" % length) + len(name) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(name) + len(value) + 3
    return b"%d %s=%s\n" % (length, name, value)


def header(random: Random, *, kind: bytes | None = None, size: int | None = None) -> bytes:
    """Return one header block; without `kind` and `size` these are hostile."""
    block = bytearray(512)
    name = random.choice(NAMES)
    block[: len(name)] = name
    block[100:124] = b"0000644\0" + b"0001750\0" * 2
    block[124:136] = number(random.choice(SIZES) if size is None else size)
    block[136:148] = number(random.choice((0, 2**33, 2**70)))
    block[156:157] = random.choice(KINDS) if kind is None else kind
    target = random.choice(NAMES)
    block[157 : 157 + len(target)] = target
    block[257:265] = random.choice((b"ustar\x0000", b"ustar  \0", bytes(8)))
    if size is None and random.random() < 0.3:
        at, width = random.choice(((100, 8), (108, 8), (124, 12), (136, 12), (329, 8)))
        block[at : at + width] = random.choice(FIELDS)[:width]
    return checked(block)


def number(value: int) -> bytes:
    """Return a number in octal, or in base 256 if it is too large."""
    return b"%011o\0" % value if value < 8**11 else b"\x80" + value.to_bytes(11, "big")


def checked(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def damaged(random: Random, data: bytes) -> bytes:
    """Replace some bytes, mostly of headers, whose sums stay right for one half."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 6)):
        changed[random.randrange(min(len(changed), 1024))] = random.randrange(256)
    if random.random() < 0.5:
        changed[:512] = checked(changed[:512])
    return bytes(changed)
