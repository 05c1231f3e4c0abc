"""Answer 400 instead of 500 if a value in an address or a form of the admin cannot be read."""

import logging
from collections.abc import Callable
from typing import Final

from django.core.exceptions import ValidationError
from django.core.paginator import InvalidPage
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.views import defaults

from orchestrator_site.base.http.api_errors import is_admin

logger = logging.getLogger(__name__)

# What Django, unfold and the databases' drivers raise for an id, a page or a filter value that is not valid.
_UNREADABLE: Final = (ValueError, OverflowError, ValidationError, InvalidPage, DataError)


class AdminErrorsMiddleware:
    """Answers 400 if a value of a request to the admin cannot be read. The log has the traceback: it may be our own fault."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not is_admin(request) or not isinstance(exception, _UNREADABLE):
            return None
        logger.warning("a request to the admin cannot be answered", exc_info=exception)
        return defaults.bad_request(request, exception)
