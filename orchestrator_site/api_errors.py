"""What an error looks like under `/v1`: `{"error": "<one sentence>", "field"?: "<path>"}`, whoever raised it.

Nothing here repeats a value that came in or the text of an exception: both may hold secrets.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework.exceptions import APIException, MethodNotAllowed

from orchestrator_site.database import DATABASE_UNAVAILABLE

logger = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 2
_NOT_FOUND = "there is nothing at this address"
_NOT_ALLOWED = "this is not allowed"
_INTERNAL = "the service failed; its log says why"


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
            return error_response(HTTPStatus.NOT_FOUND, _NOT_FOUND)
        case PermissionDenied():
            return error_response(HTTPStatus.FORBIDDEN, _NOT_ALLOWED)
        case MethodNotAllowed():  # the view adds `Allow`
            return error_response(HTTPStatus.METHOD_NOT_ALLOWED, "this address does not take that method")
        case APIException():
            return error_response(exception.status_code, HTTPStatus(exception.status_code).phrase.lower())
        case _ if isinstance(exception, DATABASE_UNAVAILABLE):
            logger.error("the database does not answer", exc_info=exception)
            return _unavailable()
        case _:
            logger.error("a request failed", exc_info=exception, extra={"view": type(context.get("view")).__name__})
            return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL)


def _unavailable() -> HttpResponse:
    return error_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the database does not answer; try again",
        headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
    )


def _is_api(request: HttpRequest) -> bool:
    return request.path == "/v1" or request.path.startswith("/v1/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: a host name that is not ours, and what else is suspicious before a view is reached."""
    if _is_api(request):
        return error_response(HTTPStatus.BAD_REQUEST, "the request cannot be read or is for another host")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403."""
    if _is_api(request):
        return error_response(HTTPStatus.FORBIDDEN, _NOT_ALLOWED)
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    if _is_api(request):
        return error_response(HTTPStatus.NOT_FOUND, _NOT_FOUND)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500."""
    if _is_api(request):
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL)
    return defaults.server_error(request)
