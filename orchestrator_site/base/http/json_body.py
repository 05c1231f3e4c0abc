"""Reads the body of a request as strict JSON; errors name the member by its path, such as `inputs[2].url`."""

import re
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any, Final, TypeVar

from django.http import HttpRequest
from django.http.request import UnreadablePostError
from gunicorn.http.errors import ParseException

from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.api_errors import ApiError, InvalidRequest, path_of
from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES
from orchestrator_site.base.values.strict_json import NotStrict, Policy, parse

T = TypeVar("T")

MAX_DEPTH: Final = 16
_POLICY: Final = Policy(max_depth=MAX_DEPTH, allow_nul=False, any_magnitude=False)
_PIECE_BYTES = 64 * 1024
_LARGE_BYTES = 64 * 1024  # of a body; the values of a smaller one take 2 MB at most
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_parsing_large = threading.Lock()


def read_json(request: HttpRequest, read: Callable[[object], T]) -> T:
    """Return what `read` makes of the JSON value of the body. Raise `ApiError` (413, 415) or `InvalidRequest`.

    Large bodies are parsed one at a time: the values of a body of 1 MiB can take 50 MB, and those of many requests must not
    add up. Small bodies, as almost all are, do not wait for them.
    """
    _check_media_type(request)
    body = _read(request)
    with _parsing_large if len(body) > _LARGE_BYTES else nullcontext():
        try:
            return read(parse_json(body))
        except Exception as error:
            _forget_values(error)
            raise


def _forget_values(error: BaseException | None) -> None:
    """Drop the values that the frames of an error hold: it lives until the response is sent, when another body may be parsed."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:  # an error may be raised from one that it has caused
        traceback.clear_frames(error.__traceback__)
        chain.append(error)
        error = error.__cause__ or error.__context__


def parse_json(body: bytes) -> object:
    """Return the JSON value of a body, objects as `dict`. Raise `InvalidRequest`."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("the body is not valid UTF-8") from error
    try:
        return parse(text, _POLICY)
    except NotStrict as error:
        path = path_of(error.trail)
        raise InvalidRequest(str(error) if path else f"the body {error}", field=path) from error


def _check_media_type(request: HttpRequest) -> None:
    charset = (request.content_params or {}).get("charset", "utf-8")
    coding = request.headers.get("Content-Encoding", "identity")
    if request.content_type != "application/json" or charset.lower() not in ("utf-8", "utf8") or coding.lower() != "identity":
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


def _read(request: HttpRequest) -> bytes:
    """Return the whole body. A `Content-Length` over the limit is refused before a byte is read."""
    announced = request.META.get("CONTENT_LENGTH")
    if announced:
        if not _LENGTH.fullmatch(announced):
            raise InvalidRequest("Content-Length must be a number of bytes")
        if int(announced) > MAX_BODY_BYTES:
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        source: Any = request
    elif request.META.get("wsgi.input_terminated"):  # chunked: Django ignores the body, the server marks its end
        source = request.META["wsgi.input"]
    else:
        return b""
    body = bytearray()
    try:
        while piece := source.read(_PIECE_BYTES):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except (UnreadablePostError, OSError) as error:
        raise InvalidRequest(error_texts.BODY_ENDED_EARLY) from error
    except ParseException as error:
        raise InvalidRequest(error_texts.INVALID_CHUNKS) from error
    if announced and len(body) < int(announced):
        raise InvalidRequest(error_texts.BODY_ENDED_EARLY)
    return bytes(body)
