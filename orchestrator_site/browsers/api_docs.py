"""The OpenAPI document and the page that renders it, which loads nothing from other hosts. Neither needs an API key."""

import json
from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from orchestrator_site.base.http.api_views import ApiView, Parameters


@extend_schema(exclude=True)
class OpenApiView(ApiView):
    needs_key = False

    def get(self, request: Request) -> HttpResponse:
        Parameters(request._request)
        return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    """Return the document; it depends on the code alone, so it is generated once."""
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return json.dumps(document, ensure_ascii=False).encode()


@extend_schema(exclude=True)
class DocsView(SpectacularSwaggerSplitView):
    """Serves the page and, as `?script=`, the script that starts it, so that inline scripts can be forbidden."""

    url_name = "openapi"
    url_self = "/v1/docs"
    template_name = "orchestrator_site/docs.html"
    http_method_names = ApiView.http_method_names

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:  # noqa: ARG002 - the base's signature
        """Ignore the `Accept` header."""
        return super().perform_content_negotiation(request, force=True)

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        Parameters(request._request, ("script",))
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response
