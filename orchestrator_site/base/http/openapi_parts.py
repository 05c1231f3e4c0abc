"""The words that the OpenAPI document is written in: JSON Schema, answers and parameters."""

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from orchestrator_site.base.http.api_views import PAGE_DEFAULT, PAGE_MAX

Schema = dict[str, Any]

_ERRORS: Final = {
    400: "A member or a query parameter is unknown, missing or not as it must be; `field` names it.",
    401: "An API key is needed, or this one is not known.",
    403: "A browser sent the request for another site's page.",
    404: "There is nothing with this id.",
    409: "A job with this id exists.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not application/json in UTF-8.",
    500: "The service failed; its log says why.",
    503: "The database does not answer, or there are too many requests; `Retry-After` says when to try again.",
}
_COMMON: Final = (400, 401, 403, 500, 503)


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(properties: dict[str, Schema], required: tuple[str, ...] = (), **more: Any) -> Schema:
    """An object that takes no other members."""
    shape: Schema = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    return shape | ({"required": list(required)} if required else {})


def string(**more: Any) -> Schema:
    return {"type": "string", **more}


def integer(low: int, high: int | None = None, **more: Any) -> Schema:
    return {"type": "integer", "minimum": low, **({} if high is None else {"maximum": high}), **more}


def choice(choices: Any, **more: Any) -> Schema:
    return string(enum=[str(choice) for choice in choices], **more)


def strings(**more: Any) -> Schema:
    return {"type": "object", "additionalProperties": string(), **more}


def array(name: str, **more: Any) -> Schema:
    """Of components of this name."""
    return {"type": "array", "items": ref(name), **more}


MOMENT: Final = string(format="date-time", description="UTC with milliseconds.")


def answer(name: str, description: str, status: int = 200) -> dict[Any, OpenApiResponse]:
    """JSON, as the component of this name says."""
    return {(status, "application/json"): OpenApiResponse(ref(name), description)}


def responses(success: dict[Any, OpenApiResponse], *errors: int) -> dict[Any, OpenApiResponse]:
    """Those of an operation, with the errors that every one has."""
    return success | {
        (status, "application/json"): OpenApiResponse(ref("Error"), description=_ERRORS[status])
        for status in sorted({*_COMMON, *errors})
    }


def query(name: str, schema: Schema, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=description)


def in_path(name: str, schema: Schema, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.PATH, description=description)


PAGE_LIMIT: Final = query("limit", integer(1, PAGE_MAX, default=PAGE_DEFAULT), "How many on a page.")
CURSOR: Final = query("cursor", string(), "The `nextCursor` of the page before.")
