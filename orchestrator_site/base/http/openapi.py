"""Declares the operations of the API: requests and answers are checked and documented from the same serializers."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, cast

from django.http import HttpResponseBase
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_parameter_type
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.json_body import read_json
from orchestrator_site.base.http.serializers import Error, QuerySerializer, RequestSerializer

_ERRORS: Final = {
    400: "A member or a query parameter is unknown, missing or invalid; `field` names it.",
    401: "The API key is missing or unknown.",
    403: "A browser sent the request on behalf of another site.",
    500: error_texts.BY_STATUS[500],
    503: "The database is unavailable, or there are too many requests; `Retry-After` says when to try again.",
}
_BODY_ERRORS: Final = {status: error_texts.BY_STATUS[status] for status in (413, 415)}


class NoParameters(QuerySerializer):
    """A query without parameters, which refuses every one."""


def operation(
    operation_id: str,
    summary: str,
    description: str,
    *,
    answers: Mapping[Any, OpenApiResponse],
    query: type[QuerySerializer] = NoParameters,
    body: type[RequestSerializer] | None = None,
    parameters: Sequence[OpenApiParameter] = (),
) -> Callable[[Any], Any]:
    """Declare a method of a view as an operation.

    Before the method runs, the query parameters are read into `view.query` and the JSON body into `view.body`. `answers` are its
    answers by status and media type, without the errors that other operations have too; `parameters` are only documented.
    """

    def declare(handler: Callable[..., HttpResponseBase]) -> Any:
        @wraps(handler)
        def handle(view: Any, request: Any, **path: Any) -> HttpResponseBase:
            view.query = query.read(request.META.get("QUERY_STRING", ""))
            if body is not None:
                view.body = read_json(request._request, body.read)
            return handler(view, request, **path)

        return extend_schema(
            operation_id=operation_id,
            summary=summary,
            description=description,
            parameters=[*([] if query is NoParameters else [query]), *parameters],
            request=None if body is None else {"application/json": body},
            responses={**answers, **described({**_ERRORS, **(_BODY_ERRORS if body else {})})},
        )(handle)

    return declare


def answer(serializer: Any, description: str, status: int = 200) -> dict[Any, OpenApiResponse]:
    """Return the description of a JSON answer."""
    return {status: OpenApiResponse(serializer, description)}


def described(errors: Mapping[int, str]) -> dict[Any, OpenApiResponse]:
    """Return the descriptions of errors, given as sentences by status."""
    return {status: OpenApiResponse(Error, f"{text[0].upper()}{text[1:].rstrip('.')}.") for status, text in errors.items()}


class ApiSchema(AutoSchema):
    """The description of a view: objects are closed, and pages are named after their items."""

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        return {**schema, "additionalProperties": False}

    def _resolve_path_parameters(self, variables: list[str]) -> list[Any]:
        path: Any = OpenApiParameter.PATH
        fields = [(name, cast("Any", self.view).path_fields[name]) for name in variables]
        return [build_parameter_type(name, field.schema, path, description=field.help_text) for name, field in fields]

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        if sentence := cast("Any", self.view).not_found:
            bodies["404"] = self._get_response_for_code(described({404: sentence})[404], "404")  # type: ignore[no-untyped-call]
        return dict(sorted(bodies.items()))

    def get_paginated_name(self, serializer_name: str) -> str:
        return f"{serializer_name.removesuffix('Summary')}Page"
