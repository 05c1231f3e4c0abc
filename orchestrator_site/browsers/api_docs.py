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

from orchestrator_site.base.http.api_views import ApiView
from orchestrator_site.base.http.fields import Text
from orchestrator_site.base.http.openapi import NoParameters
from orchestrator_site.base.http.serializers import QuerySerializer


class ScriptQuery(QuerySerializer):
    """A request for the page, or for the script that starts it."""

    script = Text(required=False)


@extend_schema(exclude=True)
class OpenApiView(ApiView):
    """`/v1/openapi.json`."""

    authentication_classes = []

    def get(self, request: Request) -> HttpResponse:
        NoParameters.read(request.META["QUERY_STRING"])
        return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    """Return the document; it depends on the code alone, so it is generated once."""
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return json.dumps(document, ensure_ascii=False).encode()


@extend_schema(exclude=True)
class DocsView(SpectacularSwaggerSplitView):
    """The page and, as `?script=`, the script that starts it, so that inline scripts can be forbidden."""

    authentication_classes = []
    url_name = "openapi"
    url_self = "/v1/docs"
    template_name = "orchestrator_site/docs.html"
    http_method_names = ApiView.http_method_names

    perform_content_negotiation = ApiView.perform_content_negotiation

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        ScriptQuery.read(request.META["QUERY_STRING"])
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response


def place_of(endpoint: tuple[str, str, str, Any]) -> tuple[str, int]:
    """Return the place of an operation in the document: by its path, and to create comes before to read.

    drf-spectacular calls this.
    """
    _, pattern, method, _ = endpoint
    return pattern, ("POST", "GET", "DELETE").index(method)


def add_probes(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Describe the probes, which a middleware answers; drf-spectacular calls this."""
    health = {"type": "string", "enum": ["healthy", "unhealthy"]}
    check = _closed({"status": health, "message": {"type": "string"}}, "status")
    checks = dict.fromkeys(("database", "broker", "engine", "egress_proxy"), check)
    result["components"]["schemas"] |= {
        "Alive": _closed({"status": {"type": "string", "enum": ["healthy"]}}, "status"),
        "Readiness": _closed({"status": health, "checks": _closed(checks, "database", "broker", "engine")}, "status", "checks"),
    }
    up: dict[str, Any] = {"status": "healthy"}
    up_checks = {"database": up, "broker": up, "engine": {**up, "message": "heartbeat from node-a"}}
    down_checks = {**up_checks, "engine": {"status": "unhealthy", "message": "no worker has connected to a container engine yet"}}
    result["paths"] |= {
        "/livez": _probe(
            "livez",
            "Check that the process is alive",
            "200 while the process serves requests. If there is no response, restart the process.",
            {"200": ("The process serves requests.", "Alive", up)},
        ),
        "/readyz": _probe(
            "readyz",
            "Check that jobs are stored and run",
            "503 if a job posted now would not be stored or would not start soon; `checks` says why.",
            {
                "200": ("Ready.", "Readiness", {"status": "healthy", "checks": up_checks}),
                "503": ("Not ready.", "Readiness", {"status": "unhealthy", "checks": down_checks}),
            },
        ),
    }
    return result


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _probe(operation: str, summary: str, description: str, answers: dict[str, tuple[str, str, Any]]) -> dict[str, Any]:
    """Describe a probe, with the description, component and example of each answer by status."""
    responses = {
        status: {"description": sentence, "content": {"application/json": {"schema": _reference(component), "example": example}}}
        for status, (sentence, component, example) in answers.items()
    }
    words = {"operationId": operation, "summary": summary, "description": description}
    return {"get": {**words, "tags": ["probes"], "security": [], "responses": responses}}


def _reference(component: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{component}"}
