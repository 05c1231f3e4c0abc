"""Gives each request an id, which its answer and its log lines have, and logs one line about it.

The id is for finding the lines of a request. A job has the id of the request that created it, so that the lines of its worker
have it, too. The line about a request has the pattern of the URL instead of the URL, whose query may contain secrets.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from django.http import HttpRequest, HttpResponseBase

from orchestrator_site.base.http.request_id import REQUEST_ID_HEADER, accepted_or_new
from orchestrator_site.base.log_context import add_fields, log_context, present_fields
from orchestrator_site.ops.health import PROBES
from orchestrator_site.ops.http_metrics import route
from orchestrator_site.web.wsgi_answer import LOG_FIELDS_KEY

logger = logging.getLogger(__name__)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE: Final = "(none)"


class RequestLogMiddleware:
    """Middleware that all others run inside, so that their lines have the request's id as well."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = accepted_or_new(request.headers.get(REQUEST_ID_HEADER, ""))
        with log_context(request_id=request_id):
            began = time.monotonic()
            response = self._get_response(request)
            _log(request, response, time.monotonic() - began)
            request.META[LOG_FIELDS_KEY] = present_fields()  # for the lines about the rest of a long answer
        response[REQUEST_ID_HEADER] = request_id
        return response

    def process_view(
        self, _request: HttpRequest, _view: Callable[..., Any], _args: Sequence[Any], arguments: dict[str, Any]
    ) -> None:
        """Name the job in the lines of a request that is about one."""
        if "job_id" in arguments:
            add_fields(job=str(arguments["job_id"]))


def _log(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Log a line, except for probes and static files that were found: there would be many, which say nothing."""
    if request.path_info in PROBES or (request.resolver_match is None and response.status_code < 400):
        return
    method = request.method if request.method in _METHODS else "OTHER"
    details = {
        "method": method,
        "route": route(request) or _NO_ROUTE,
        "status": response.status_code,
        "ms": round(seconds * 1000, 1),
    }
    logger.info("%(method)s %(route)s %(status)d in %(ms)s ms", details)
