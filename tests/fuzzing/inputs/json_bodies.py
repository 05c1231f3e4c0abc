"""Bodies of requests that are JSON, almost JSON, or anything else."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

# The image exists nowhere and is not pulled: a job that is accepted ends without a container.
JOB: Final = {"image": '"none.invalid/none"', "pullPolicy": '"never"'}

NUMBERS: Final = (
    *("0", "-0", "-1", "1e400", "-1e400", "1E+99999", "1e-400", "NaN", "Infinity", "-Infinity", "01", "0x10", "1_0", ".5", "5."),
    *("+1", "\u0663", "9" * 400, "9" * 4301, "-" + "9" * 100_000, "0." + "0" * 3000 + "1", "2147483648", "9223372036854775808"),
)
STRINGS: Final = (
    *('""', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\\u12"', '"a\nb"', '"\0"', "'a'", '"'),
    *('"\u202e"', '"\ufeff"', '"\U0010ffff"', '"../../etc/passwd"', '"/"', '"%s"' % ("x" * 70_000), '"%s"' % ("\\u0001" * 1000)),
    *(
        '"http://[::1"',
        '"http://x:99999/"',
        '"file:///etc/passwd"',
        '"http://\\u0000/"',
        '"http://x/\\r\\nX: y"',
        '"%s"' % ("é" * 400),
    ),
)
OTHERS: Final = (
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    '{"":0}',
    "",
    "nul",
    "//",
    "undefined",
    "[1,]",
    '{"a":1,}',
    '{"a" 1}',
)
NAMES: Final = (
    *("id", "image", "command", "cpu", "memory", "timeoutSeconds", "environment", "meta", "workspace", "inputs", "outputs"),
    *(
        "pullPolicy",
        "network",
        "callback",
        "unknown",
        "__proto__",
        "constructor",
        "",
        "a" * 1000,
        "\\u0000",
        "\\ud800",
        "im\\u0061ge",
    ),
)
ITEM_NAMES: Final = ("type", "id", "path", "content", "encoding", "mode", "url", "headers", "sha256", "method", "key", "events")
_MAX_LENGTH: Final = 1_200_000  # characters, which is more than a service accepts
DEPTHS: Final = (15, 16, 17, 500, 100_000)


def text(random: Random, depth: int = 0) -> str:
    """Return a text that may be a JSON value."""
    match random.randrange(8 if depth < 4 else 4):
        case 0:
            return random.choice(NUMBERS)
        case 1 | 2:
            return random.choice(STRINGS)
        case 3:
            return random.choice(OTHERS)
        case 4:
            return "[" + ",".join(text(random, depth + 1) for _ in range(random.randrange(4))) + "]"
        case 5:
            return _object([(random.choice(ITEM_NAMES), text(random, depth + 1)) for _ in range(random.randrange(6))])
        case 6:
            return (
                "["
                + ",".join([_object([(random.choice(ITEM_NAMES), random.choice(STRINGS[:16]))])] * random.choice((1, 65, 2000)))
                + "]"
            )
        case _:
            return nested(random)


def nested(random: Random) -> str:
    levels = random.choice(DEPTHS)
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ("[", "")))
    return opening * levels + random.choice(("", "1", "[]")) + closing * levels


def job(random: Random) -> str:
    """Return the text of a job of which some members are replaced, added or given twice."""
    members = list(JOB.items())
    for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
        member = (random.choice(NAMES), text(random))
        if random.random() < 0.5:
            members = [pair for pair in members if pair[0] != member[0]]
        members.insert(random.randrange(len(members) + 1), member)
    return _object(members)


def body(random: Random) -> bytes:
    """Return the body of a request; about a third are in no valid encoding."""
    value = job(random) if random.random() < 0.7 else text(random)
    encode: Callable[[str], bytes] = random.choice((*[_utf_8] * 8, *_ENCODERS))
    data = encode(value[:_MAX_LENGTH])
    match random.randrange(12):
        case 0:
            return data[: random.randrange(len(data) + 1)]
        case 1:
            return data + data
        case 2:
            return b" " * random.choice((1, 70_000, 1_100_000)) + data
        case 3:
            return data.replace(b'"', random.choice((b"", b"\xff", b"\0", b"'")), random.randrange(1, 4))
        case 4:
            return random.randbytes(random.choice((1, 100, 5000)))
    return data


def _object(members: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"


def _utf_8(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


_ENCODERS: Final = (
    lambda value: b"\xef\xbb\xbf" + _utf_8(value),
    lambda value: value.encode("utf-16"),
    lambda value: value.encode("utf-16-le"),
    lambda value: value.encode("utf-32-be"),
    lambda value: value.encode("latin-1", "replace"),
    lambda value: _utf_8(value).replace(b"/", b"\xc0\xaf"),  # an overlong form
    lambda value: _utf_8(value) + b"\xed\xa0\x80",  # a lone surrogate, as UTF-8 may not encode it
)
