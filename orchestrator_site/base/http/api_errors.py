"""Errors of the service as JSON: `{"error": "<one sentence>", "field"?: "<path>"}`, except in the admin.

No error repeats a value of the request or the text of an exception: both may hold secrets.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from rest_framework.exceptions import APIException

from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE
from orchestrator_site.base.http import error_texts
from orchestrator_site.base.intervals import WebIntervals

logger = logging.getLogger(__name__)

_BODY_HEADERS: Final = frozenset({"content-type", "content-length", "content-disposition", "content-encoding"})
_MAX_SHOWN_NAME = 128
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL refuses NUL, UTF-8 a lone surrogate


class ApiError(Exception):
    """An error that is answered with `status`, one sentence and, if there is one, the member at fault."""

    def __init__(
        self, status: int, sentence: str = "", *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Make an error; without `sentence` it has the sentence of its status."""
        super().__init__(sentence)
        self.status, self.sentence, self.field, self.headers = status, sentence, field, headers


class InvalidRequest(ApiError):
    """A 400 whose `field` is the path of a member (`inputs[2].url`) or the name of a query parameter."""

    def __init__(self, sentence: str, *, field: str | None = None) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, sentence, field=field)


def path_of(trail: Iterable[str | int]) -> str:
    """Return the path that leads from the root through members and items: `inputs[2].url`. An empty name is shown as `""`."""
    path = ""
    for step in trail:
        path += f"[{step}]" if isinstance(step, int) else f".{_shown(step)}"
    return path.removeprefix(".")


def _shown(name: str) -> str:
    name = _UNSTORABLE.sub("\ufffd", name) or '""'
    return name if len(name) <= _MAX_SHOWN_NAME else name[:_MAX_SHOWN_NAME] + "…"


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """Return an answer in UTF-8, without escapes."""
    return JsonResponse(body, status=status, headers=headers, json_dumps_params={"ensure_ascii": False})


def error_response(
    status: int, sentence: str = "", *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> JsonResponse:
    """Return an error as JSON. Without a sentence it has the one of its status."""
    sentence = sentence or error_texts.BY_STATUS.get(status) or HTTPStatus(status).phrase.lower()
    return json_response({"error": sentence} | ({"field": field} if field else {}), status=status, headers=headers)


def exception_handler(exception: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Convert an exception of a view under `/v1` to an answer; Django REST framework calls this."""
    match exception:
        case ApiError():
            return error_response(exception.status, exception.sentence, field=exception.field, headers=exception.headers)
        case APIException():
            return error_response(exception.status_code)
        case _ if isinstance(exception, DATABASE_UNAVAILABLE):
            logger.warning("the database is unavailable: %s", exception)
            retry_after = str(round(WebIntervals().retry_unavailable))
            return error_response(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": retry_after})
        case _:
            logger.error("a request failed", exc_info=exception, extra={"view": type(context.get("view")).__name__})
            return error_response(HTTPStatus.INTERNAL_SERVER_ERROR)


def is_api(request: HttpRequest) -> bool:
    return request.path_info == "/v1" or request.path_info.startswith("/v1/")


def is_admin(request: HttpRequest) -> bool:
    return request.path_info == "/admin" or request.path_info.startswith("/admin/")


class JsonErrorsMiddleware:
    """Middleware that converts errors of other middleware and of Django's own views, which are HTML or have no body, to JSON."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        is_json = response.get("Content-Type") == "application/json"
        if response.status_code < HTTPStatus.BAD_REQUEST or is_json or is_admin(request):
            return response
        if response.streaming:  # closing one means the end of the request, which closes the database connection
            response.close()
        headers = {name: value for name, value in response.headers.items() if name.lower() not in _BODY_HEADERS}
        return error_response(response.status_code, headers=headers)
