"""Answers of hostile servers: heads, framing and bodies that lie, and parts that never end."""

import gzip
from dataclasses import dataclass
from random import Random
from typing import Final

STATUSES: Final = (
    *(b"HTTP/1.1 200 OK",) * 12,
    *(
        b"HTTP/1.1 %d x" % status
        for status in (201, 204, 206, 301, 302, 307, 304, 400, 408, 410, 416, 425, 429, 500, 503, 100, 101, 103, 199, 999)
    ),
    *(
        b"HTTP/1.1 200",
        b"HTTP/1.0 200 OK",
        b"HTTP/9.9 200 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 -200 x",
        b"HTTP/1.1 2_0_0 x",
        b"HTTP/1.1 099 x",
    ),
    *(
        b"ICY 200 OK",
        b"",
        b"\0",
        b"HTTP/1.1 200 \xff\0",
        b"HTTP/1.1 200 " + b"x" * 70_000,
        b"HTTP/ 200",
        b"HTTP/1.1",
        b"\x16\x03\x01\x02\x00",
    ),
)
HEADERS: Final = (
    *(
        b"Content-Length: %s" % length
        for length in (b"0", b"5", b"5, 5", b"-1", b"+5", b"5_0", b"9" * 18, b"9" * 5000, b"\xb2", b"", b"0x5")
    ),
    *(
        b"Transfer-Encoding: %s" % coding
        for coding in (b"chunked", b"gzip", b"chunked, chunked", b"identity", b"CHUNKED", b"", b"\xff")
    ),
    *(b"Content-Encoding: %s" % coding for coding in (b"gzip", b"br, gzip", b"", b"\xff")),
    *(
        b"Retry-After: %s" % value
        for value in (b"0", b"9" * 400, b"-1", b"Fri, 31 Dec 9999 23:59:59 GMT", b"Mon, 1 Jan 1 0:0:0 +9999", b"\xb2")
    ),
    *(
        b"Date: %s" % value
        for value in (b"x", b"Fri, 31 Dec 9999 23:59:59 -2359", b"1 Jan 0001 00:00:00 +2359", b"0", b"(" * 3000, b'"' * 3000)
    ),
    *(b"ETag: %s" % value for value in (b'"a"', b'W/"a"', b'"' + b"a" * 5000 + b'"', b"\xff", b'"\r\n a"')),
    *(b"Last-Modified: %s" % value for value in (b"Thu, 01 Jan 1970 00:00:00 GMT", b"\xff", b"")),
    *(
        b"Content-Range: bytes %s" % value
        for value in (b"0-4/5", b"5-9/10", b"4-0/5", b"0-4/*", b"9" * 18 + b"-" + b"9" * 18 + b"/*", b"x", b"-1-4/5")
    ),
    *(b"Connection: %s" % value for value in (b"close", b"keep-alive", b"\xff", b"upgrade")),
    *(
        b"Accept-Ranges: none",
        b"Set-Cookie: a=b",
        b"X\0: y",
        b"no colon",
        b": empty",
        b" folded",
        b"\tfolded",
        b"",
        b"X: \r y",
        b"X: " + b"y" * 60_000,
    ),
)
# Only addresses, so that no name is looked up; `{port}` is the server's own.
LOCATIONS: Final = (
    *(
        b"/",
        b"",
        b"?",
        b"//",
        b"http://[",
        b"http://127.0.0.1:99999/",
        b"\xff",
        b"?" + b"x" * 9000,
        b"javascript:x",
        b"file:///etc/passwd",
    ),
    *(
        b"http://169.254.169.254/latest",
        b"http://10.0.0.1/",
        b"http://127.0.0.1:1/",
        b"../" * 1000,
        b"http://u:p@127.0.0.1:%d/",
        b"http://0x7f.1/",
    ),
    *(
        b"https://127.0.0.1:%d/",
        b"http://127.0.0.1:%d/%%zz",
        b"http://127.0.0.1:%d/\r\n\tx",
        b"http:/\\/127.0.0.1/",
        b"http://\xe2\x98\x83",
        b"#",
    ),
)
BODIES: Final = (
    b"",
    b"hello",
    b"hello" * 20_000,
    b"\0" * 1000,
    b"\xff\xfe" * 3000,
    gzip.compress(bytes(10 * 1024**2)),
    b"\xed\xa0\x80" * 700,
)
CHUNK_LINES: Final = (
    b"5",
    b"-1",
    b"+5",
    b"0x5",
    b"",
    b"5 5",
    b"f" * 15,
    b"f" * 16,
    b"5;" + b"x" * 70_000,
    b"five",
    b"\xb2",
    b"5\n",
)
ENDLESS: Final = (
    b"X-A: b\r\n",
    b"HTTP/1.1 103 x\r\n\r\n",
    b"x" * 1000,
    b"1\r\nx\r\n",
    b"\r\n",
    b"0;x\r\n",
    b"\0",
    b"HTTP/1.1 200 OK\r\n",
    b"5\r\nhello\r\n",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server does with each connection of one input."""

    data: bytes
    endless: bytes = b""  # sent again and again after it
    pause: float = 0.0  # seconds before each of those
    resets: bool = False  # the connection, in place of closing it
    hangs: bool = False  # keeps the connection open until the client closes it


def answer(random: Random, port: int) -> Answer:
    data = b"".join(_message(random, port) for _ in range(random.choice((1, 1, 1, 2, 12))))
    match random.randrange(12):
        case 0:
            return Answer(data[: random.randrange(len(data) + 1)], resets=random.random() < 0.5)
        case 1:
            changed = bytearray(data or b"x")
            changed[random.randrange(min(len(changed), 200))] = random.randrange(256)
            return Answer(bytes(changed))
        case 2 | 3:
            cut = data[: data.find(b"\r\n\r\n") + random.choice((2, 4))] if random.random() < 0.7 else data
            return Answer(cut, endless=random.choice(ENDLESS))
        case 4 if random.random() < 0.3:  # which take the time that a client gives them
            return Answer(data[: random.randrange(len(data) + 1)], endless=b"x", pause=0.02)
        case 5 if random.random() < 0.3:
            return Answer(data[: random.randrange(len(data) + 1)], hangs=True)
        case 6:
            return Answer(
                random.choice((b"", random.randbytes(100), b"\x15\x03\x01\x00\x02\x02\x28", b"\x16\x03\x03\xff\xff" + bytes(100)))
            )
    return Answer(data)


def date(random: Random) -> str:
    """Return a text that may be a date, as `Retry-After` and `Date` have it."""
    parts = (
        "Mon,",
        "31",
        "Dec",
        "Feb",
        "0",
        "99999",
        "2026",
        "23:59:59",
        "25:61",
        "1:2:3:4",
        "GMT",
        "+9999",
        "-0000",
        "-2359",
        "(x)",
        '"',
        "<",
        "@",
        ",",
        "\xb2",
        "",
    )
    return " ".join(random.choices(parts, k=random.randrange(8))) * random.choice((1, 1, 1, 500))


def _message(random: Random, port: int) -> bytes:
    lines = [random.choice(STATUSES), *random.choices(HEADERS, k=random.choice((0, 1, 2, 4)))]
    if random.random() < 0.3:
        location = random.choice(LOCATIONS)
        lines.append(b"Location: " + (location % port if b"%d" in location else location))
    if random.random() < 0.03:
        lines += [b"X-%d: y" % number for number in range(random.choice((101, 20_000)))]
    body = random.choice(BODIES)
    match random.randrange(4):
        case 0:
            lines.append(b"Content-Length: %d" % max(0, len(body) + random.choice((0, 0, 0, -1, 1, 1000))))
        case 1:
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if random.random() < 0.4:
                body += random.choice(CHUNK_LINES) + b"\r\nhello\r\n"
            body += random.choice(
                (b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n", b"0\r\n" + b"X: y\r\n" * 20_000, b"")
            )
    end = random.choice((b"\r\n",) * 9 + (b"\n",))
    return end.join(lines) + end + end + body
