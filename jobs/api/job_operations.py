"""What the OpenAPI document says of each address: one decorator per operation, and what they have in common."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

from callbacks.models import Event
from jobs.api import limits
from jobs.api.json_schemas import COMPONENTS
from jobs.states import State, Stream
from orchestrator_site.base.http.openapi_parts import (
    CURSOR,
    PAGE_LIMIT,
    Schema,
    answer,
    choice,
    in_path,
    query,
    ref,
    responses,
    string,
)

_ID = in_path("job_id", COMPONENTS["Accepted"]["properties"]["id"], "The job's id.")
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
    responses=responses(answer("Accepted", "The job is stored.", 202), 409, 413, 415),
)
list_jobs = extend_schema(
    operation_id="listJobs",
    summary="List jobs",
    description=(
        "Jobs, newest first. A page may be short, or empty, and still have a `nextCursor`.\n\n"
        "`meta.<key>=<value>`, any number of times with different keys: those whose `meta` has this value under this key."
    ),
    parameters=[
        PAGE_LIMIT,
        CURSOR,
        query("status", {"type": "string", "enum": State.values}, ""),
        query("image", {"type": "string"}, "Exactly as it was given."),
        query("node", {"type": "string"}, "A node's name."),
        query("createdAfter", _MOMENT, "RFC 3339 with an offset; exclusive, to the millisecond."),
        query("createdBefore", _MOMENT, "RFC 3339 with an offset; exclusive, to the millisecond."),
    ],
    responses=responses(answer("JobPage", "Newest first.")),
)
get_job = extend_schema(
    operation_id="getJob",
    summary="Look at a job, or wait for it",
    parameters=[_ID, query("wait", _WAIT, "Answer when the job is decided, or after so many seconds.")],
    responses=responses(answer("Job", "The job."), 404),
)
cancel_job = extend_schema(
    operation_id="cancelJob",
    summary="Cancel a job",
    parameters=[_ID],
    responses=responses({204: OpenApiResponse(description="The job is decided.")}, 404),
)
list_events = extend_schema(
    operation_id="listEvents",
    summary="List a job's events, and how their deliveries went",
    description="In order. A page may be short and still have a `nextCursor`. A job without a callback has none.",
    parameters=[_ID, PAGE_LIMIT, CURSOR, query("state", choice(Event.State.values), "")],
    responses=responses(answer("EventPage", "In order."), 404),
)
redeliver_event = extend_schema(
    operation_id="redeliverEvent",
    summary="Send an event again",
    description=(
        "Whatever became of it: under the same id, with all the tries of a new one. One that waits for its next try is tried now."
    ),
    request=None,
    parameters=[_ID, in_path("event_id", string(format="uuid"), "The event's id.")],
    responses=responses(answer("Redelivery", "It will be sent, in its place.", 202), 404),
)
redeliver_dead_events = extend_schema(
    operation_id="redeliverDeadEvents",
    summary="Send all dead events of a job again",
    request=None,
    parameters=[_ID],
    responses=responses(answer("Redelivery", "They will be sent, in order.", 202), 404),
)
get_logs = extend_schema(
    operation_id="getLogs",
    summary="Read a job's log, or follow it",
    parameters=[
        _ID,
        query(
            "after", {"type": "integer", "minimum": 0, "maximum": limits.LOG_NUMBER_MAX, "default": 0}, "Lines after this `seq`."
        ),
        query(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": limits.LOG_LINES_MAX},
            f"Lines; default: all as text, {limits.LOG_LINES_DEFAULT} as JSON.",
        ),
        query("stream", {"type": "string", "enum": Stream.values}, "Only this stream's lines."),
        query("tail", {"type": "integer", "minimum": 0, "maximum": limits.LOG_LINES_MAX}, "Begin with the last so many lines."),
        query("wait", _WAIT, "Answer as soon as there is a line or the log has ended, or after so many seconds."),
    ],
    responses=responses(
        {
            (200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, "What was printed, byte for byte where it is UTF-8."),
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
