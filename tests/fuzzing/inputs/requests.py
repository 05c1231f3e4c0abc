"""Requests as bytes: heads and framing that are valid, almost valid, or contradict themselves."""

from collections.abc import Sequence
from random import Random
from typing import Final

from tests.fuzzing.inputs import json_bodies, targets

METHODS: Final = ("HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PRI", "M" * 30, "M" * 3000, "G(T", "")
MEDIA_TYPES: Final = (
    *("application/json",) * 8,
    *(
        "application/json; charset=utf-8",
        "application/json; charset=UTF8",
        "application/json;charset=utf-16",
        "text/plain",
        "",
        ";",
        "/",
    ),
    *(
        "application/json; a*=nope''%41",
        "application/json; charset*=nope''%41",
        "application/json; a*=idna''%ff",
        "a/b; ; =; a*=",
    ),
    *(
        "application/json; a*0*=x''%41; a*1=b",
        "application/json; a*99999999999=b",
        "application/json; charset=../../x",
        "*/*",
        "a",
    ),
    *(
        "application/json; " + ";" * 7000,
        'application/json; a="' + ";" * 7000,
        "multipart/form-data; boundary=x",
        "multipart/form-data",
    ),
    *(
        "application/x-www-form-urlencoded; charset=idna",
        "application/json, application/json",
        "APPLICATION/JSON",
        "application/json\t;",
    ),
    *(
        "text/event-stream",
        "text/event-stream;q=NaN",
        "application/json;q=1e400, text/plain;q=-1",
        "*/*;q=0." + "9" * 4000,
        "\xff\xfe",
    ),
)
HEADERS: Final = {
    "Host": ("127.0.0.1",) * 6
    + ("localhost", "x", "evil.example", "127.0.0.1:0", "[::1]", "127.0.0.1:99999", "a" * 300, "127.0.0.1."),
    "Authorization": (
        "Bearer",
        "Bearer ",
        "Bearer \xff",
        "Bearer " + "a" * 5000,
        "Basic !!",
        "Bearer a b",
        "bearer é",
        "Digest x=y",
    ),
    "Cookie": (
        "sessionid=" + "a" * 4000,
        "sessionid=\xff; csrftoken=\xfe",
        "a=b; " * 1000,
        "=;=;",
        'sessionid="\\000"',
        "messages=x",
    ),
    "Origin": ("null", "http://127.0.0.1", "http://evil.example", "http://[", "\xff", "http://x:99999999"),
    "Sec-Fetch-Site": ("cross-site", "same-origin", "none", "\xff"),
    "X-Request-Id": ("a" * 200, "a b", "{}", "\xff", "ok-1"),
    "Last-Event-ID": ("1", "1-end", "9" * 16, "9" * 17, "-1", "\xb2", "1-end-end"),
    "If-Modified-Since": (
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "x",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "0",
        "Mon, 1 Jan 1 0:0:0 +9999",
    ),
    "If-None-Match": ("*", '"', "\xff", "W/" * 1000),
    "Range": ("bytes=0-", "bytes=-1", "bytes=5-1", "bytes=" + "0-1," * 500, "bytes=99999999999999999999-", "bytes=\xb2-", "x=1"),
    "Accept-Encoding": ("gzip", "gzip;q=x", "*;q=0", "identity;q=0", "br, " * 1000),
    "Accept-Language": ("xx", "a" * 5000, "de;q=NaN", "\xff"),
    "X-HTTP-Method-Override": ("DELETE", "\xff"),
    "X-Method-Override": ("DELETE",),
    "X-Forwarded-Proto": ("https", "gopher", ""),
    "X-Forwarded-For": ("1.2.3.4", "\xff", "a" * 5000),
    "X-Forwarded-Host": ("evil.example",),
    "Forwarded": ("for=x;host=evil.example;proto=https",),
    "X_Forwarded_Proto": ("https",),
    "SCRIPT_NAME": ("/x",),
    "Connection": ("close", "keep-alive", "upgrade, close", "\xff", "Content-Length"),
    "Upgrade": ("websocket", "h2c", "HTTP/2.0"),
    "Expect": ("100-continue", "100-Continue", "tea", ""),
    "TE": ("trailers", "chunked;q=0.5"),
    "Content-Encoding": ("identity", "gzip", "br, gzip", ""),
    "Referer": ("http://\xff", "http://[::1", "//"),
    "Proxy": ("http://127.0.0.1:1",),
    "X-Empty": ("",),
    "X Bad": ("x",),
    "X-Folded": ("a\r\n b", "a\rb", "a\nb", "a\0b", "\t"),
}
CHUNK_SIZES: Final = (
    "zz",
    "-1",
    "+5",
    "0x5",
    "5_0",
    "",
    " 5",
    "5 ",
    "f" * 17,
    "f" * 4000,
    "00000000005",
    "5;" + "x" * 900,
    '5;a="\r\n"',
)
LENGTHS: Final = ("-1", "+5", "5_0", "0x5", "", " ", "9" * 20, "9" * 5000, "5, 5", "5, 6", "\xb2", "1048577", "1e2", "5 5")


def requests(random: Random) -> bytes:
    """Return what a hostile client sends on one connection."""
    data = b"".join(request(random) for _ in range(random.choice((1, 1, 1, 1, 2, 5, 40))))
    match random.randrange(10):
        case 0 | 1:
            return damaged(random, data)
        case 2:
            return data[: random.randrange(len(data))]
        case 3:
            return data + random.choice(
                (b"\r\n" * 10, b"\0" * 100, b"GET", b"\x16\x03\x01\x02\x00\x01\x00", random.randbytes(50))
            )
    return data


def request(random: Random) -> bytes:
    """Return one request of which a few parts are hostile: of one that is so throughout, only the first is looked at."""
    method = random.choice(METHODS) if _seldom(random) else random.choice(("GET", "GET", "POST", "DELETE"))
    path = targets.path(random, method, is_hostile=_seldom(random))
    headers = _headers(random) if _seldom(random) else [("Host", "127.0.0.1")]
    body = b""
    if method == "POST" or random.random() < 0.05:
        body = json_bodies.body(random)
        framing = [("Content-Length", str(len(body)))]
        if _seldom(random):
            framing, body = framed(random, body)
        headers += framing
        headers.append(("Content-Type", random.choice(MEDIA_TYPES) if _seldom(random) else "application/json"))
    elif _seldom(random):
        headers.append(("Accept", random.choice(MEDIA_TYPES)))
    random.shuffle(headers)
    version = random.choice(("1.0", "0.9", "2.0", "1.10", "1", "", "1.1 x")) if random.random() < 0.03 else "1.1"
    lines = [f"{method} {path}{targets.query(random, path)} HTTP/{version}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def _seldom(random: Random) -> bool:
    return random.random() < 0.25


def framed(random: Random, body: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers that say where the body ends, and its bytes; a third of them lie."""
    length = ("Content-Length", str(len(body)))
    chunked = ("Transfer-Encoding", "chunked")
    match random.randrange(24):
        case 0:
            return [("Content-Length", random.choice(LENGTHS))], body
        case 1:
            return [length, random.choice((length, ("content-length", str(len(body) + 1))))], body
        case 2:
            return [("Content-Length", str(max(0, len(body) + random.choice((-5, -1, 1, 1000)))))], body
        case 3:
            return [length, chunked], chunks(random, body)
        case 4:
            return [], body
        case 5:
            coding = random.choice(
                ("gzip", "chunked, chunked", "gzip, chunked", "Chunked", "\tchunked", "xchunked", "identity", "", "chunked;a")
            )
            return [("Transfer-Encoding", coding)], chunks(random, body)
        case 6:
            return [chunked], body
        case 7:
            return [chunked], f"{random.choice(CHUNK_SIZES)}\r\n".encode() + body[:5] + b"\r\n0\r\n\r\n"
        case 8:
            return [chunked], chunks(random, body)[: -random.randrange(1, 6)]
        case 9:
            trailer = random.choice(
                (b"Content-Length: 1\r\n", b"X: y\r\n" * 20_000, b"\0\r\n", b"X: " + b"y" * 5000 + b"\r\n", b"Host: x\r\n")
            )
            return [chunked], chunks(random, body)[:-2] + trailer + b"\r\n"
        case 10 | 11 | 12 | 13:
            return [chunked], chunks(random, body)
    return [length], body


def chunks(random: Random, body: bytes) -> bytes:
    size = random.choice((1, 7, 1000, len(body) + 1))
    if size * 5000 < len(body):
        size = len(body) // 5000
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def damaged(random: Random, data: bytes) -> bytes:
    """Replace, remove or insert some bytes, mostly in the first head."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(min(len(changed), random.choice((200, 10_000_000))) + 1)
        piece = random.choice(
            (b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b":", b"\0", b"\xff", b"Content-Length: 3\r\n", b"\t")
        )
        changed[at : at + random.randrange(3)] = piece
    return bytes(changed)


def _headers(random: Random) -> list[tuple[str, str]]:
    names = [] if random.random() < 0.05 else ["Host"]
    names += random.choices(tuple(HEADERS), k=random.choice((1, 1, 1, 2, 6)))
    headers = [(name, random.choice(HEADERS[name])) for name in names]
    match random.randrange(20):
        case 0:
            headers += [(f"X-{number}", "x") for number in range(random.choice((99, 101, 3000)))]
        case 1:
            headers.append(("X-Large", "x" * random.choice((8000, 8200, 33_000))))
        case 2:
            headers += headers
        case 3:
            headers.append(("Content-Type", f"application/json; charset={random.randbytes(20).hex()}"))
    return headers


def pieces_of(random: Random, data: bytes) -> Sequence[bytes]:
    """Cut what is sent into packets."""
    cuts = sorted(random.choices(range(len(data) + 1), k=random.choice((0, 0, 1, 3, 12))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
