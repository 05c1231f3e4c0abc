"""Reads a request's body as strict JSON, whatever the other side sends.

Refused are what readers disagree on (duplicate names, NaN, lone surrogates) and what is only sent to hurt
(depth, size, integers of thousands of digits). Names are paths: `inputs[2].url`.
"""

import json
import math
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any, Final, TypeVar

from django.http import HttpRequest
from django.http.request import UnreadablePostError
from gunicorn.http.errors import ParseException

from orchestrator_site.base.http.api_errors import ApiError, InvalidRequest
from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES

T = TypeVar("T")

MAX_DEPTH: Final = 16
_PIECE_BYTES = 64 * 1024
_LARGE_BYTES = 64 * 1024  # of a body; the values of a smaller one take 2 MB at most
_MAX_SHOWN_NAME = 128
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_parsing_large = threading.Lock()


def member(path: str, name: str) -> str:
    """The path of an object's member."""
    shown = _UNSTORABLE.sub("\ufffd", name)
    if len(shown) > _MAX_SHOWN_NAME:
        shown = shown[:_MAX_SHOWN_NAME] + "…"
    return f"{path}.{shown}" if path else shown


def item(path: str, index: int) -> str:
    """The path of an array's item."""
    return f"{path}[{index}]"


def read_json(request: HttpRequest, read: Callable[[object], T]) -> T:
    """Return what `read` makes of the body's JSON value. Raises `ApiError` 413 and 415, and `InvalidRequest`.

    Large bodies are parsed one at a time: the values of a body of 1 MiB can take 50 MB, and those of many requests must not
    add up. Small bodies, as almost all are, do not wait for them.
    """
    _check_media_type(request)
    body = _read(request)
    with _parsing_large if len(body) > _LARGE_BYTES else nullcontext():
        return read(parse_json(body))


def parse_json(body: bytes) -> object:
    """A JSON value, objects as `dict`. Raises `InvalidRequest`."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("the body is not valid UTF-8") from error
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise InvalidRequest(_TOO_DEEP) from error
    except ValueError as error:
        raise InvalidRequest("the body holds a number that cannot be read") from error
    _check(value, [])
    return value


_CUT = "the body ended early"
_TOO_DEEP = f"the body is nested deeper than {MAX_DEPTH} levels"

_Step = str | int  # from an object to a member, from an array to an item


class _Repeating(dict[str, Any]):
    """An object in which a name is given twice: refused once its path is known."""

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


def _check(value: object, trail: list[_Step]) -> None:
    """Refuse a repeated name, a NUL, a lone surrogate and depth anywhere, whether the member is known or not.

    `trail` leads here from the root. It becomes a path only for an error: a path for each of half a million values would
    take gigabytes.
    """
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise InvalidRequest("it holds a NUL or a lone surrogate", field=_path(trail) or None)
    elif isinstance(value, dict | list):
        if len(trail) == MAX_DEPTH:
            raise InvalidRequest(_TOO_DEEP)
        if isinstance(value, dict):
            _check_names(value, trail)
        for step, child in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(child, str | dict | list):
                trail.append(step)
                _check(child, trail)
                trail.pop()


def _check_names(members: dict[str, Any], trail: list[_Step]) -> None:
    if isinstance(members, _Repeating):
        raise InvalidRequest("it is given twice", field=_path([*trail, members.repeated]))
    for name in members:
        if _UNSTORABLE.search(name):
            raise InvalidRequest("its name holds a NUL or a lone surrogate", field=_path([*trail, name]))


def _path(trail: list[_Step]) -> str:
    path = ""
    for step in trail:
        path = member(path, step) if isinstance(step, str) else item(path, step)
    return path


def _check_media_type(request: HttpRequest) -> None:
    charset = (request.content_params or {}).get("charset", "utf-8")
    coding = request.headers.get("Content-Encoding", "identity")
    if request.content_type != "application/json" or charset.lower() not in ("utf-8", "utf8") or coding.lower() != "identity":
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body as application/json in UTF-8")


def _read(request: HttpRequest) -> bytes:
    """The whole body. A length that is announced is judged before a byte is read."""
    announced = request.META.get("CONTENT_LENGTH")
    if announced:
        if not _LENGTH.fullmatch(announced):
            raise InvalidRequest("Content-Length cannot be read")
        if int(announced) > MAX_BODY_BYTES:
            raise _too_large()
        source: Any = request
    elif request.META.get("wsgi.input_terminated"):  # sent in chunks: Django reads none of it, the server marks its end
        source = request.META["wsgi.input"]
    else:
        return b""
    body = bytearray()
    try:
        while piece := source.read(_PIECE_BYTES):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
    except (UnreadablePostError, OSError) as error:
        raise InvalidRequest(_CUT) from error
    except ParseException as error:
        raise InvalidRequest("the body's chunks cannot be read") from error
    if announced and len(body) < int(announced):
        raise InvalidRequest(_CUT)
    return bytes(body)


def _too_large() -> ApiError:
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is larger than 1 MiB")
