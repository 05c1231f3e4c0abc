"""Refuses requests to the API that browsers send on behalf of other sites.

Without this, any page that an operator has open could call a service on the operator's machine or network: embedded mode needs
no API key, and some requests have neither a body nor a content type that requires a CORS preflight.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from orchestrator_site.base.egress.http_client import EgressDenied, origin_of
from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.api_errors import error_response, is_api

_OWN: Final = ("same-origin", "none")  # "none": started by the user, for example by typing the address
_DOCS: Final = "/v1/docs"


class CrossSiteMiddleware:
    """Middleware that answers 403 to a request to `/v1` from a page of another origin, whatever its method.

    Browsers send `Origin` or `Sec-Fetch-Site` (Fetch Metadata); other clients send neither.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if is_api(request) and not _is_link_to_docs(request) and not _is_own(request):
            return error_response(HTTPStatus.FORBIDDEN, error_texts.CROSS_SITE)
        return self._get_response(request)


def _is_own(request: HttpRequest) -> bool:
    if request.headers.get("Sec-Fetch-Site", "none") not in _OWN:
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    here = f"{request.scheme}://{request.get_host()}"  # raises DisallowedHost for a foreign host name (DNS rebinding)
    try:
        return origin_of(origin) in (origin_of(here), origin_of(settings.CONFIGURATION.public_url))
    except EgressDenied:  # such as "null"
        return False


def _is_link_to_docs(request: HttpRequest) -> bool:
    """Return whether the browser follows a link to the documentation, which any site may do."""
    return (
        request.path_info == _DOCS
        and request.method == "GET"
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") == "document"
    )
