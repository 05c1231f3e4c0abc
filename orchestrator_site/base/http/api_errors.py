"""What an error looks like: `{"error": "<one sentence>", "field"?: "<path>"}`, whoever raised it.

That holds for every address but those of the admin, which browsers show.

Nothing here repeats a value that came in or the text of an exception: both may hold secrets.
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework.exceptions import APIException, MethodNotAllowed

from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE

logger = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 2
_SENTENCES: Final = {
    400: "the request cannot be read or is for another host",
    403: "this is not allowed",
    404: "there is nothing at this address",
    405: "this method is not allowed for this address",
    500: "the service failed; its log says why",
}
_OF_THE_BODY: Final = frozenset({"content-type", "content-length", "content-disposition", "content-encoding"})


class ApiError(Exception):
    """Answers the request with `status`, one sentence and, where there is one, the member at fault."""

    def __init__(self, status: int, sentence: str, *, field: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.field = field
        self.headers = dict(headers or {})


class InvalidRequest(ApiError):
    """400, naming a member of the body by path (`inputs[2].url`) or a query parameter."""

    def __init__(self, sentence: str, *, field: str | None = None) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, sentence, field=field)


def error_response(
    status: int, sentence: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> JsonResponse:
    """The answer itself."""
    body = {"error": sentence} | ({"field": field} if field else {})
    return JsonResponse(body, status=status, headers=dict(headers or {}), json_dumps_params={"ensure_ascii": False})


def exception_handler(exception: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Django REST framework's hook: every exception that leaves a view under `/v1` becomes an answer here."""
    match exception:
        case ApiError():
            return error_response(exception.status, exception.sentence, field=exception.field, headers=exception.headers)
        case Http404():
            return _plain_error(HTTPStatus.NOT_FOUND)
        case PermissionDenied():
            return _plain_error(HTTPStatus.FORBIDDEN)
        case MethodNotAllowed():  # the view adds `Allow`
            return _plain_error(HTTPStatus.METHOD_NOT_ALLOWED)
        case APIException():
            return _plain_error(exception.status_code)
        case _ if isinstance(exception, DATABASE_UNAVAILABLE):
            logger.error("the database does not answer", exc_info=exception)
            return _unavailable()
        case _:
            logger.error("a request failed", exc_info=exception, extra={"view": type(context.get("view")).__name__})
            return _plain_error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _plain_error(status: int) -> JsonResponse:
    return error_response(status, _SENTENCES.get(status) or HTTPStatus(status).phrase.lower())


def _unavailable() -> HttpResponse:
    return error_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the database does not answer; try again",
        headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
    )


def is_api(request: HttpRequest) -> bool:
    return request.path_info == "/v1" or request.path_info.startswith("/v1/")


def is_admin(request: HttpRequest) -> bool:
    return request.path_info == "/admin" or request.path_info.startswith("/admin/")


class JsonErrorsMiddleware:
    """Converts errors that middleware and Django's own views answer in HTML, or without a body, to JSON."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if (
            response.status_code < HTTPStatus.BAD_REQUEST
            or response.get("Content-Type") == "application/json"
            or is_admin(request)
        ):
            return response
        answer = _plain_error(response.status_code)
        for name, value in response.headers.items():
            if name.lower() not in _OF_THE_BODY:
                answer[name] = value
        response.close()
        return answer


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: a host name that is not ours, and what else is suspicious before a view is reached."""
    return defaults.bad_request(request, exception) if is_admin(request) else _plain_error(HTTPStatus.BAD_REQUEST)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403."""
    return defaults.permission_denied(request, exception) if is_admin(request) else _plain_error(HTTPStatus.FORBIDDEN)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    return defaults.page_not_found(request, exception) if is_admin(request) else _plain_error(HTTPStatus.NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500."""
    return defaults.server_error(request) if is_admin(request) else _plain_error(HTTPStatus.INTERNAL_SERVER_ERROR)
