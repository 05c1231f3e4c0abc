"""Reads the body of a request as strict JSON; errors name the member by its path, such as `inputs[2].url`."""

import re
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any, Final, TypeVar

from django.http import HttpRequest
from django.http.request import UnreadablePostError
from gunicorn.http.errors import ParseException

from orchestrator_site.base.http.api_errors import ApiError, InvalidRequest
from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES
from orchestrator_site.base.values.strict_json import NotStrict, Policy, Step, parse

T = TypeVar("T")

MAX_DEPTH: Final = 16
_POLICY: Final = Policy(max_depth=MAX_DEPTH, allow_nul=False, any_magnitude=False)
_PIECE_BYTES = 64 * 1024
_LARGE_BYTES = 64 * 1024  # of a body; the values of a smaller one take 2 MB at most
_MAX_SHOWN_NAME = 128
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL refuses NUL, UTF-8 a lone surrogate
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
        return parse(text, _POLICY)
    except NotStrict as error:
        subject = "it" if error.trail else "the body"
        raise InvalidRequest(f"{subject} {error}", field=_path(error.trail) or None) from error


_CUT = "the body ended early"


def _path(trail: Iterable[Step]) -> str:
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
