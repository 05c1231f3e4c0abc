"""Sets the Content Security Policy: what browsers may load and run on our pages, which no other page may frame.

Django has this built in since 6.0.
"""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

from orchestrator_site.base.http.api_errors import is_admin

_NOTHING: Final = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
# All files come from the service itself, and no page has inline scripts. Pages have inline styles.
_PAGE: Final = _NOTHING | {
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
}
_ADMIN: Final = _PAGE | {"script-src": "'self' 'unsafe-eval'"}  # Alpine.js compiles the expressions in unfold's attributes


def _text(policy: dict[str, str]) -> str:
    return "; ".join(f"{name} {sources}" for name, sources in policy.items())


class ContentSecurityMiddleware:
    """Middleware that sets the policy on every response, not only on pages: any response can be opened in a browser."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._nothing, self._page, self._admin = _text(_NOTHING), _text(_PAGE), _text(_ADMIN)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        response["Content-Security-Policy"] = self._policy(request)
        return response

    def _policy(self, request: HttpRequest) -> str:
        if is_admin(request):
            return self._admin
        return self._page if request.path_info == "/v1/docs" else self._nothing
