"""Errors of the admin: 400 instead of 500 if a URL or form contains an invalid value, and the page of unknown addresses."""

import logging
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.core.paginator import InvalidPage
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import defaults

from orchestrator_site.base.http.api_errors import is_admin

logger = logging.getLogger(__name__)

# What Django, unfold and the databases' drivers raise for an invalid id, page or filter value.
_INVALID: Final = (ValueError, OverflowError, ValidationError, InvalidPage, DataError)


class AdminErrorsMiddleware:
    """Middleware that answers 400 if a request to the admin contains an invalid value, and logs where it was noticed."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not is_admin(request) or not isinstance(exception, _INVALID):
            return None
        noticed = traceback.extract_tb(exception.__traceback__)[-1]
        details = {"error": type(exception).__name__, "noticed": f"{noticed.filename}:{noticed.lineno}"}
        logger.warning("a request to the admin contains an invalid value", extra=details)
        return defaults.bad_request(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404: to users of the admin with one of its pages, from which its menu leads on."""
    if not (is_admin(request) and admin.site.has_permission(request)):
        return defaults.page_not_found(request, exception)
    context = {**admin.site.each_context(request), "title": "Page not found"}
    return render(request, "orchestrator_site/not_found.html", context, status=HTTPStatus.NOT_FOUND)
