"""What the OpenAPI document says of each address: one decorator per operation, and what they have in common."""

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from jobs import limits
from jobs.schemas import COMPONENTS, Schema, ref
from jobs.states import State, Stream

_ERRORS: Final = {
    400: "A member or a query parameter is unknown, missing or not as it must be; `field` names it.",
    401: "An API key is needed, or this one is not known.",
    404: "There is no job with this id.",
    409: "A job with this id exists.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not application/json in UTF-8.",
    500: "The service failed; its log says why.",
    503: "The database does not answer; `Retry-After` says when to try again.",
}
_COMMON: Final = (400, 401, 500, 503)


def _responses(success: dict[Any, OpenApiResponse], *errors: int) -> dict[Any, OpenApiResponse]:
    return success | {
        (status, "application/json"): OpenApiResponse(ref("Error"), description=_ERRORS[status])
        for status in sorted({*_COMMON, *errors})
    }


def _query(name: str, schema: Schema, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=description)


_ID = OpenApiParameter("job_id", COMPONENTS["Accepted"]["properties"]["id"], OpenApiParameter.PATH, description="The job's id.")
_MOMENT: Schema = {"type": "string", "format": "date-time"}
_WAIT: Schema = {"type": "number", "minimum": 0, "maximum": limits.WAIT_SECONDS, "multipleOf": 0.001, "default": 0}

create_job = extend_schema(
    operation_id="createJob",
    summary="Run a job",
    request={"application/json": ref("NewJob")},
    parameters=[
        OpenApiParameter(
            "Location", OpenApiTypes.STR, OpenApiParameter.HEADER, response=[202], description="The job's address.", required=True
        )
    ],
    responses=_responses({(202, "application/json"): OpenApiResponse(ref("Accepted"), "The job is stored.")}, 409, 413, 415),
)
list_jobs = extend_schema(
    operation_id="listJobs",
    summary="List jobs",
    description=(
        "Jobs, newest first. A page may be short, or empty, and still have a `nextCursor`.\n\n"
        "`meta.<key>=<value>`, any number of times with different keys: those whose `meta` has this value under this key."
    ),
    parameters=[
        _query("limit", {"type": "integer", "minimum": 1, "maximum": limits.PAGE_MAX, "default": limits.PAGE_DEFAULT}, "Jobs."),
        _query("cursor", {"type": "string"}, "The `nextCursor` of the page before."),
        _query("status", {"type": "string", "enum": State.values}, ""),
        _query("image", {"type": "string"}, "Exactly as it was given."),
        _query("node", {"type": "string"}, "A node's name."),
        _query("createdAfter", _MOMENT, "RFC 3339 with an offset; exclusive, to the millisecond."),
        _query("createdBefore", _MOMENT, "RFC 3339 with an offset; exclusive, to the millisecond."),
    ],
    responses=_responses({(200, "application/json"): OpenApiResponse(ref("JobPage"), "Newest first.")}),
)
get_job = extend_schema(
    operation_id="getJob",
    summary="Look at a job, or wait for it",
    parameters=[_ID, _query("wait", _WAIT, "Answer when the job is decided, or after so many seconds.")],
    responses=_responses({(200, "application/json"): OpenApiResponse(ref("Job"), "The job.")}, 404),
)
cancel_job = extend_schema(
    operation_id="cancelJob",
    summary="Cancel a job",
    parameters=[_ID],
    responses=_responses({204: OpenApiResponse(description="The job is decided.")}, 404),
)
get_logs = extend_schema(
    operation_id="getLogs",
    summary="Read a job's log, or follow it",
    parameters=[
        _ID,
        _query(
            "after", {"type": "integer", "minimum": 0, "maximum": limits.LOG_NUMBER_MAX, "default": 0}, "Lines after this `seq`."
        ),
        _query(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": limits.LOG_LINES_MAX},
            f"Lines; default: all as text, {limits.LOG_LINES_DEFAULT} as JSON.",
        ),
        _query("stream", {"type": "string", "enum": Stream.values}, "Only this stream's lines."),
        _query("tail", {"type": "integer", "minimum": 0, "maximum": limits.LOG_LINES_MAX}, "Begin with the last so many lines."),
        _query("wait", _WAIT, "Answer as soon as there is a line or the log has ended, or after so many seconds."),
    ],
    responses=_responses(
        {
            (200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, "The lines, each with a line feed."),
            (200, "application/json"): OpenApiResponse(ref("LogPage"), "A page of lines, where `Accept` prefers JSON."),
        },
        404,
    ),
)


def complete_document(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook: shapes, keys, probes, and what it has no words for."""
    components = result.setdefault("components", {})
    components["schemas"] = components.get("schemas", {}) | COMPONENTS
    components["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    result["paths"]["/v1/jobs"]["post"]["requestBody"]["required"] = True
    result["security"] = [{"apiKey": []}]
    result["paths"] |= {
        "/livez": _probe("livez", "Does the process serve?", {"200": ("Alive", "The process serves.")}),
        "/readyz": _probe(
            "readyz", "Would a job be stored and run?", {"200": ("Readiness", "Ready."), "503": ("Readiness", "Not ready.")}
        ),
    }
    return result


def _probe(operation: str, summary: str, answers: dict[str, tuple[str, str]]) -> Schema:
    responses = {
        status: {"description": description, "content": {"application/json": {"schema": ref(name)}}}
        for status, (name, description) in answers.items()
    }
    return {"get": {"operationId": operation, "summary": summary, "tags": ["probes"], "security": [], "responses": responses}}
