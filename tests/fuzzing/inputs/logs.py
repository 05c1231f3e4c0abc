"""Multiplexed logs and chunked bodies of an engine: valid, cut anywhere, and with lengths and kinds that lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from jobs.engine.protocol import Frame

TIME: Final = "2026-01-01T00:00:00.%09dZ"
DATA: Final = (b"a\n", b"\n", b"a b c\n", b"\xff\xfe\n", b"\0\n", b"x" * 16_383 + b"\n", "é\u202e\n".encode(), b"\r\n", b"  \n")
KINDS: Final = (0, 3, 4, 127, 255)
SIZES: Final = (0, 1, 29, 30, 31, 1024**2, 1024**2 + 1, 2**31, 2**32 - 1)
PAYLOADS: Final = (b"", b" ", b"no-time-and-no-space", b"\xff\xff x\n", b"2026 ", b"2026  \n", b"x" * 70_000)
SIZE_LINES: Final = (
    b"zz",
    b"-1",
    b"+5",
    b"0x5",
    b"5_0",
    b"",
    b" 5",
    b"f" * 16,
    b"f" * 5000,
    b"5 5",
    b"\xb2",
    b"5\n",
    b"00000000000000005",
)
_SMALL: Final = 64


@dataclass(frozen=True, slots=True)
class Log:
    """A log as it is sent; `frames` are those of a valid one."""

    data: bytes
    frames: list[Frame] | None = None


def log(random: Random) -> Log:
    frames, data = [], b""
    for number in range(random.choice((0, 1, 2, 5, 40))):
        kind, text = random.choice((1, 2)), random.choice(DATA)
        frames.append(Frame("stdout" if kind == 1 else "stderr", TIME % number, text))
        data += frame(kind, (TIME % number).encode() + b" " + text)
    match random.randrange(8):
        case 0 | 1 | 2:
            return Log(data, frames)
        case 3:
            return Log(data[: random.randrange(len(data) + 1)])
        case 4:
            return Log(data + frame(random.choice(KINDS), random.choice(PAYLOADS)) + data)
        case 5:
            return Log(data + frame(random.choice((1, 2, 3)), random.choice(PAYLOADS), size=random.choice(SIZES)) + data)
        case 6:
            changed = bytearray(data or b"x")
            changed[random.randrange(len(changed))] = random.randrange(256)
            return Log(bytes(changed))
    return Log(
        data + random.choice((random.randbytes(100), b"HTTP/1.1 200 OK\r\n\r\n", b'{"log": "a\\n", "stream": "stdout"}\n'))
    )


def frame(kind: int, payload: bytes, *, size: int | None = None) -> bytes:
    return bytes([kind, 0, 0, 0]) + (len(payload) if size is None else size).to_bytes(4, "big") + payload


def pieces(random: Random, data: bytes) -> Sequence[bytes]:
    """Cut what is received anywhere, a short log into single bytes at times."""
    if len(data) < _SMALL and random.random() < 0.3:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(random.choices(range(len(data) + 1), k=random.choice((0, 1, 3, 10))))
    return [piece for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if (piece := data[start:end])]


@dataclass(frozen=True, slots=True)
class ChunkedBody:
    """The bytes of a chunked body; `content` is that of a valid one."""

    data: bytes
    content: bytes | None = None


def chunked_body(random: Random) -> ChunkedBody:
    content = [random.randbytes(random.choice((1, 5, 16, 1000))) for _ in range(random.choice((0, 1, 3, 10)))]
    lines = [random.choice((b"%x", b"%X", b"%04x")) % len(piece) for piece in content]
    extension = random.choice((b"",) * 5 + (b";a=b", b" ; a"))
    chunks = [line + extension + b"\r\n" + piece + b"\r\n" for line, piece in zip(lines, content, strict=True)]
    data, end = b"".join(chunks), b"0\r\n\r\n"
    match random.randrange(7):
        case 0 | 1:
            return ChunkedBody(data + end, b"".join(content))
        case 2:
            return ChunkedBody(data)
        case 3:
            return ChunkedBody(data + random.choice(SIZE_LINES) + b"\r\nhello\r\n" + end)
        case 4:
            return ChunkedBody(
                data + b"5\r\nhello" + random.choice((b"", b"XX", b"\n\n", b"\r", b"  ")) + b"5\r\nworld\r\n" + end
            )
        case 5:
            return ChunkedBody((data + end)[: -random.randrange(3, 6)])
    return ChunkedBody(data + random.randbytes(50))
