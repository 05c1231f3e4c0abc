"""JSON that every reader understands alike, without its white space and with its numbers as they were written.

A text is read token by token and never becomes a value: no digit is lost, and the memory needed is bounded by the limit.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

MAX_DEPTH: Final = 100
MAX_DIGITS: Final = 4300  # of an integer

# Possessive, so that a text that does not match costs no more than one that does.
_TOKEN: Final = re.compile(
    r"""[ \t\n\r]*+(?:
        (?P<mark>[\[\]{}:,])
      | (?P<string>"[^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*+")
      | (?P<integer>-?(?:0|[1-9][0-9]*+)(?![0-9.eE]))
      | (?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_VALUE: Final = frozenset({"[", "{", "string", "integer", "scalar"})
_FIRST_ITEM: Final = _VALUE | {"]"}
_NAME: Final = frozenset({"string"})
_FIRST_NAME: Final = _NAME | {"}"}
_COLON: Final = frozenset({":"})
_NEXT_ITEM: Final = frozenset({",", "]"})
_NEXT_NAME: Final = frozenset({",", "}"})
_END: Final = frozenset({"end"})


class NotStrict(Exception):
    """The text is no JSON, or readers disagree on what it means."""


class TooLong(Exception):
    """As JSON the text has more bytes than the limit. As a JSON string it has more, too."""


def compact(text: str, limit: int) -> str:
    """`text` as compact JSON of at most `limit` bytes in UTF-8. Raises `NotStrict`, `TooLong`.

    Refused as not strict are names that an object has twice, NaN and the infinities, integers of more than `MAX_DIGITS` digits,
    more than `MAX_DEPTH` levels and lone surrogates.
    """
    pieces: list[str] = []
    size = 0
    for piece in _pieces(text):
        size += len(piece.encode())
        if size > limit:
            raise TooLong
        pieces.append(piece)
    return "".join(pieces)


def _pieces(text: str) -> Iterator[str]:
    """The tokens of a JSON text, checked."""
    containers: list[set[str] | None] = []  # that are open, from the outermost: an object's names so far, None for an array
    expected = _VALUE
    for kind, token in _tokens(text):
        if kind not in expected:
            raise NotStrict
        match kind:
            case "[" | "{":
                containers.append(set() if kind == "{" else None)
                expected = _FIRST_NAME if kind == "{" else _FIRST_ITEM
                if len(containers) > MAX_DEPTH:
                    raise NotStrict
            case ":":
                expected = _VALUE
            case ",":
                expected = _VALUE if containers[-1] is None else _NAME
            case "string" if expected in (_NAME, _FIRST_NAME):
                names = containers[-1]
                if names is None or token in names:
                    raise NotStrict
                names.add(token)
                expected = _COLON
            case _:
                if kind in ("]", "}"):
                    containers.pop()
                expected = _END if not containers else _NEXT_ITEM if containers[-1] is None else _NEXT_NAME
        yield token


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Each token's kind, a bracket or the like being its own, and how it is to be written."""
    position = 0
    while found := _TOKEN.match(text, position):
        position = found.end()
        kind = str(found.lastgroup)
        token = found[kind]
        if kind == "mark":
            yield token, token
        elif kind == "string":
            yield kind, _rewritten(token)
        elif kind == "integer" and len(token.lstrip("-")) > MAX_DIGITS:
            raise NotStrict
        else:
            yield kind, token
            if kind == "end":
                return
    raise NotStrict


def _rewritten(string: str) -> str:
    """A string with no more escapes than it needs, so that equal strings are the same text."""
    try:
        value = json.loads(string)
        value.encode()
    except ValueError as error:  # an unknown escape, or a lone surrogate
        raise NotStrict from error
    return json.dumps(value, ensure_ascii=False)
