"""Declares the operations of the API: requests and answers are checked and documented from the same serializers."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any, Final, cast

from django.http import HttpResponseBase
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_examples_list, build_parameter_type
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiRequest, OpenApiResponse, extend_schema

from orchestrator_site.base.access.models import NAME_PATTERN, NAME_RULE
from orchestrator_site.base.access.scopes import OtherNamespace
from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.api_errors import ApiError
from orchestrator_site.base.http.fields import Text
from orchestrator_site.base.http.json_body import read_json
from orchestrator_site.base.http.request_id import REQUEST_ID_HEADER
from orchestrator_site.base.http.serializers import Error, QuerySerializer, RequestSerializer

Responses = dict[Any, OpenApiResponse]  # by status, or by status and media type
NAMESPACE: Final = "namespace"  # the query parameter
_NAMESPACE_HELP: Final = (
    "Whose jobs the request is for. A key of one namespace needs no other; with a key of all namespaces, or without keys, the "
    "default is all of them for lists and `default` for the rest."
)
_INVALID: Final = "A member or a query parameter is unknown, missing or invalid; `field` names it."
_UNAVAILABLE: Final = "The database is unavailable, or there are too many requests; `Retry-After` says when to try again."
_TOO_MANY: Final = "There were too many such requests; `Retry-After` says when to try again."
_FORBIDDEN: Final = (error_texts.CROSS_SITE, error_texts.READ_ONLY_KEY, error_texts.OTHER_NAMESPACE)
_UNKNOWN_PARAMETER: Final = {"error": "unknown query parameter", "field": "limits"}
_REQUEST_ID: Final = OpenApiParameter(
    REQUEST_ID_HEADER,
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The id of this request in the log of the service: 1 to 128 letters, digits or characters of `._~+/=:@-`. Any "
    "other is replaced.",
)
_ANSWERED_REQUEST_ID: Final = OpenApiParameter(
    REQUEST_ID_HEADER,
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    response=True,
    description="The id of this request in the log of the service: that of the request, or a new one.",
)
_RETRY_AFTER: Final = OpenApiParameter(
    "Retry-After",
    OpenApiTypes.INT,
    OpenApiParameter.HEADER,
    response=[429, 503],
    description="The number of seconds to wait before the next try.",
)


class NoParameters(QuerySerializer):
    """A query without parameters, which refuses every one."""


class NamespaceQuery(QuerySerializer):
    """The namespace of a request."""

    namespace = Text(pattern=NAME_PATTERN, message=NAME_RULE, required=False, help_text=_NAMESPACE_HELP)


def operation(
    operation_id: str,
    summary: str,
    description: str,
    *,
    answers: Mapping[Any, OpenApiResponse],
    query: type[QuerySerializer] = NoParameters,
    body: type[RequestSerializer] | None = None,
    bodies: Mapping[str, Any] | None = None,
    invalid: Mapping[str, str] = _UNKNOWN_PARAMETER,
    parameters: Sequence[OpenApiParameter] = (),
) -> Callable[[Any], Any]:
    """Declare a method of a view as an operation.

    Before the method runs, the query parameters are read into `view.query` and the JSON body into `view.body`. `answers` are its
    answers by status and media type, without the errors that other operations have too. `bodies` are examples of the body by
    name, and `invalid` is an example of a 400; they and `parameters` are only documented.
    """

    def declare(handler: Callable[..., HttpResponseBase]) -> Any:
        @wraps(handler)
        def handle(view: Any, request: Any, **path: Any) -> HttpResponseBase:
            view.query = query.read(request.META.get("QUERY_STRING", ""))
            view.namespace = _namespace(view)
            if body is not None:
                view.body = read_json(request._request, body.read)
            return handler(view, request, **path)

        return extend_schema(
            operation_id=operation_id,
            summary=summary,
            description=description,
            parameters=[
                *([] if query is NoParameters else [query]),
                *parameters,
                _REQUEST_ID,
                _ANSWERED_REQUEST_ID,
                _RETRY_AFTER,
            ],
            request=None if body is None else {"application/json": OpenApiRequest(body, examples=_named(bodies or {}))},
            responses={400: _error(_INVALID, invalid), **_common_errors(has_body=body is not None), **answers},
        )(handle)

    return declare


def _namespace(view: Any) -> str | None:
    """Return whose jobs a request is for, None for those of all namespaces. Raise the 403 of a key of another one."""
    try:
        namespace: str | None = view.access.scope(view.query.pop(NAMESPACE, None))
    except OtherNamespace as error:
        raise ApiError(HTTPStatus.FORBIDDEN, error_texts.OTHER_NAMESPACE, field=NAMESPACE) from error
    return namespace


def answer(serializer: Any, description: str, status: int = 200, *, examples: Mapping[str, Any]) -> Responses:
    """Return the description of a JSON answer, with examples by name."""
    return {status: OpenApiResponse(serializer, description, examples=_named(examples))}


def text_answer(media_type: str, description: str, *, examples: Mapping[str, str]) -> Responses:
    """Return the description of an answer of another media type than JSON, with examples by name."""
    return {(200, media_type): OpenApiResponse(OpenApiTypes.STR, description, examples=_named(examples))}


def described(errors: Mapping[int, str], *, field: str | None = None) -> Responses:
    """Return the descriptions of errors, given as sentences by status; the examples name `field`."""
    at_fault = {} if field is None else {"field": field}
    return {
        status: _error(f"{text[0].upper()}{text[1:].rstrip('.')}.", {"error": text, **at_fault})
        for status, text in errors.items()
    }


def unavailable(*sentences: str) -> Responses:
    """Return the description of a 503 that may also have one of these sentences."""
    return {503: _error(_UNAVAILABLE, *({"error": sentence} for sentence in (error_texts.BY_STATUS[503], *sentences)))}


def too_many_requests(*sentences: str) -> Responses:
    """Return the description of a 429 that may also have one of these sentences."""
    return {429: _error(_TOO_MANY, *({"error": sentence} for sentence in (error_texts.WRONG_KEYS, *sentences)))}


def _common_errors(*, has_body: bool) -> Responses:
    """Return the descriptions of the errors that all operations have, or all with a body."""
    statuses = (413, 415, 500) if has_body else (500,)
    return {
        401: _error("The API key is missing or unknown.", {"error": error_texts.BY_STATUS[401]}),
        403: _error(
            "A browser sent the request on behalf of another site, or the API key does not allow it.",
            *({"error": sentence} for sentence in _FORBIDDEN),
        ),
        **described({status: error_texts.BY_STATUS[status] for status in statuses}),
        **too_many_requests(),
        **unavailable(),
    }


def _error(description: str, *bodies: Mapping[str, str]) -> OpenApiResponse:
    examples = [OpenApiExample(f"Error {number}", summary=body["error"], value=body) for number, body in enumerate(bodies, 1)]
    return OpenApiResponse(Error, description, examples=examples)


def _named(values: Mapping[str, Any]) -> list[OpenApiExample]:
    return [OpenApiExample(name, value=value) for name, value in values.items()]


class ApiSchema(AutoSchema):
    """The description of a view: objects are closed, and pages are named after their items."""

    def get_tags(self) -> list[str]:
        return [cast("Any", self.view).tag]

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

    def _get_examples(
        self,
        serializer: Any,  # noqa: ARG002 - the base's signature
        direction: Any,  # noqa: ARG002
        media_type: Any,  # noqa: ARG002
        status_code: Any = None,  # noqa: ARG002
        extras: Any = None,
    ) -> Any:
        """Return the examples as they were declared; the base would put that of a page into another page."""
        return build_examples_list(extras or [])

    def get_paginated_name(self, serializer_name: str) -> str:
        return f"{serializer_name.removesuffix('Summary')}Page"
