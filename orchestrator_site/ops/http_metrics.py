"""Middleware that counts requests and measures how long their answers take."""

import re
import time
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

from orchestrator_site.base import measurements
from orchestrator_site.base.http.long_polls import waited

_CONVERTER: Final = re.compile(r"<\w+:(\w+)>")
_WITHOUT_ROUTE: Final = frozenset({"unknown"})  # names of patterns for all URLs that are not found
_PROBES: Final = frozenset({"/livez", "/readyz"})


class HttpMetricsMiddleware:
    """The first middleware: it sees every answer. What a long poll waits for a job is not slowness, and does not count."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        waited.seconds = 0.0
        began = time.monotonic()
        response = self._get_response(request)
        seconds = max(0.0, time.monotonic() - began - waited.seconds)
        measurements.request_answered(request.method or "", route(request), response.status_code, seconds)
        return response


def route(request: HttpRequest) -> str:
    """Return the pattern of the request's route, such as `/v1/jobs/<job_id>`; an empty text if it has none."""
    if request.path_info in _PROBES:
        return request.path_info
    match = request.resolver_match
    if match is None or match.url_name in _WITHOUT_ROUTE or "(?P<url>" in match.route:
        return ""
    return "/" + _CONVERTER.sub(r"<\1>", match.route)
