"""Strict JSON: text that every reader understands alike.

Refused whatever the policy: a name twice in one object, NaN and the infinities, integers of more than 4,300 digits
(Python's own limit) and lone surrogates.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_MAX_SHOWN_NAME: Final = 128  # characters

Step = str | int  # the name of an object's member, or the index of an array's item


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The permitted content of a text, beyond the rules above."""

    max_depth: int
    allow_nul: bool  # in strings and names
    any_magnitude: bool  # also numbers beyond the range of floats, such as 1e400


class NotStrict(Exception):
    """The text is not strict JSON. The message says why, as in "<the text or value> is not valid JSON".

    `trail` leads from the root to the invalid value; it is empty for the whole text.
    """

    def __init__(self, message: str, trail: list[Step] | None = None) -> None:
        super().__init__(message)
        self.trail: Final = tuple(trail or ())


class TooLong(Exception):
    """The compact form of the text has more bytes than the limit."""


def parse(text: str, policy: Policy) -> Any:
    """Return the value of a JSON text, objects as `dict`. Raise `NotStrict`."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=float if policy.any_magnitude else _finite,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise NotStrict(f"is not valid JSON: line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _too_deep(policy) from error
    except ValueError as error:
        raise NotStrict("contains an invalid number") from error
    _check(value, policy, _LONE_SURROGATE if policy.allow_nul else _NUL_OR_LONE_SURROGATE, [])
    return value


def compact(text: str, policy: Policy, max_bytes: int) -> str:
    """Return a JSON text without white space, with every number as it was written. Raise `NotStrict`, `TooLong`.

    Only the compact text is parsed, so memory is bounded by `max_bytes` (in UTF-8) and not by the length of `text`.
    """
    pieces: list[str] = []
    size = 0
    for piece in _tokens(text):
        size += len(piece.encode())
        if size > max_bytes:
            raise TooLong
        pieces.append(piece)
    compacted = "".join(pieces)
    parse(compacted, policy)
    return compacted


_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NUL_OR_LONE_SURROGATE: Final = re.compile("[\x00\ud800-\udfff]")

# Possessive quantifiers: no backtracking on an invalid text.
_TOKEN: Final = re.compile(
    r"""[ \t\n\r]*+(?:
        (?P<mark>[\[\]{}:,])
      | (?P<string>"[^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*+")
      | (?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)


class _Repeating(dict[str, Any]):
    """An object with a repeated name, refused by `_check`, which knows the path."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _Repeating(pairs)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("out of range")
    return number


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check(value: object, policy: Policy, forbidden: re.Pattern[str], trail: list[Step]) -> None:
    """Raise `NotStrict` for a repeated name, a forbidden character or too many levels in `value`, which `trail` leads to.

    The trail is one list for all values: a path for each of half a million values would take gigabytes.
    """
    if isinstance(value, str):
        if forbidden.search(value):
            raise NotStrict("must not contain a NUL or a lone surrogate", trail)
    elif isinstance(value, dict | list):
        if len(trail) == policy.max_depth:
            raise _too_deep(policy)
        if isinstance(value, dict):
            _check_names(value, forbidden, trail)
        for step, child in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(child, str | dict | list):
                trail.append(step)
                _check(child, policy, forbidden, trail)
                trail.pop()


def _check_names(members: dict[str, Any], forbidden: re.Pattern[str], trail: list[Step]) -> None:
    if isinstance(members, _Repeating):
        raise NotStrict(f"the name {_shown(members.repeated)} is given twice", [*trail, members.repeated])
    for name in members:
        if forbidden.search(name):
            raise NotStrict("must not have a NUL or a lone surrogate in its name", [*trail, name])


def _shown(name: str) -> str:
    """Return the beginning of a name in quotes, with escapes if it has unusual characters."""
    start = name[:_MAX_SHOWN_NAME]
    return f'"{start}"' if start.isprintable() else json.dumps(start)


def _too_deep(policy: Policy) -> NotStrict:
    return NotStrict(f"must not be nested deeper than {policy.max_depth} levels")


def _tokens(text: str) -> Iterator[str]:
    """Yield the tokens of a text, the strings with no more escapes than they need. Raise `NotStrict`."""
    position = 0
    after_value = False
    while found := _TOKEN.match(text, position):
        position = found.end()
        kind = str(found.lastgroup)
        if kind == "end":
            return
        if after_value and kind != "mark":  # without the white space between them, two values may read as one
            break
        after_value = kind != "mark"
        yield _minimal(found[kind]) if kind == "string" else found[kind]
    raise NotStrict("is not valid JSON")


def _minimal(string: str) -> str:
    try:
        value = json.loads(string)
        value.encode()
    except ValueError as error:  # an unknown escape, or a lone surrogate
        raise NotStrict("is not valid JSON") from error
    return json.dumps(value, ensure_ascii=False)
