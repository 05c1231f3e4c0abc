"""Errors of the service as JSON: `{"error": "<one sentence>", "field"?: "<path>"}`, except in the admin.

No error repeats a value of the request or the text of an exception: both may hold secrets.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
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
        self.status = status
        self.sentence = sentence or _sentence(status)
        super().__init__(self.sentence)
        self.field = field
        self.headers = dict(headers or {})


class InvalidRequest(ApiError):
    """A 400 whose `field` is the path of a member (`inputs[2].url`) or the name of a query parameter."""

    def __init__(self, sentence: str, *, field: str | None = None) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, sentence, field=field)


def path_of(trail: Iterable[str | int]) -> str:
    """Return the path that leads from the root through members and items: `inputs[2].url`."""
    path = ""
    for step in trail:
        path += f"[{step}]" if isinstance(step, int) else f".{_shown(step)}"
    return path.removeprefix(".")


def _shown(name: str) -> str:
    name = _UNSTORABLE.sub("\ufffd", name)
    return name if len(name) <= _MAX_SHOWN_NAME else name[:_MAX_SHOWN_NAME] + "…"


def json_response(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """Return an answer in UTF-8, without escapes."""
    return JsonResponse(body, status=status, headers=headers, json_dumps_params={"ensure_ascii": False})


def error_response(
    status: int, sentence: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> JsonResponse:
    """Return an error as JSON."""
    return json_response({"error": sentence} | ({"field": field} if field else {}), status=status, headers=headers)


def exception_handler(exception: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Convert an exception of a view under `/v1` to an answer; Django REST framework calls this."""
    match exception:
        case ApiError():
            return error_response(exception.status, exception.sentence, field=exception.field, headers=exception.headers)
        case Http404():
            return _plain_error(HTTPStatus.NOT_FOUND)
        case PermissionDenied():
            return _plain_error(HTTPStatus.FORBIDDEN)
        case APIException():
            return _plain_error(exception.status_code)
        case _ if isinstance(exception, DATABASE_UNAVAILABLE):
            logger.error("the database is unavailable", exc_info=exception)
            return _plain_error(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(round(WebIntervals().retry_unavailable))})
        case _:
            logger.error("a request failed", exc_info=exception, extra={"view": type(context.get("view")).__name__})
            return _plain_error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _plain_error(status: int, headers: Mapping[str, str] | None = None) -> JsonResponse:
    return error_response(status, _sentence(status), headers=headers)


def _sentence(status: int) -> str:
    return error_texts.BY_STATUS.get(status) or HTTPStatus(status).phrase.lower()


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
        answer = _plain_error(response.status_code)
        for name, value in response.headers.items():
            if name.lower() not in _BODY_HEADERS:
                answer[name] = value
        response.close()
        return answer


def _handler(status: int, for_admin: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Return a view for Django's `handler400` and the like: JSON, except in the admin."""

    def answer(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
        arguments = (request,) if exception is None else (request, exception)
        return for_admin(*arguments) if is_admin(request) else _plain_error(status)

    return answer


bad_request = _handler(400, defaults.bad_request)  # an unknown host name, or another suspicious request
permission_denied = _handler(403, defaults.permission_denied)
not_found = _handler(404, defaults.page_not_found)
server_error = _handler(500, defaults.server_error)
