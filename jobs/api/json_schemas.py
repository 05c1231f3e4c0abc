"""The shapes of the API as JSON Schema, for the OpenAPI document. The numbers come from `jobs.api.limits`."""

from typing import Final, get_args

from callbacks.models import Event
from jobs import events, exec_limits
from jobs.api import limits
from jobs.api.new_job import EVENT_TYPES
from jobs.spec import Network, PullPolicy, UploadMethod
from jobs.states import InputType, OutputType, Reason, State, Stream, TransferStatus
from orchestrator_site.base.http.openapi_parts import MOMENT, Schema, array, choice, integer, record, ref, string, strings

_JOB_ID = string(minLength=1, maxLength=limits.ID_LENGTH, pattern=f"^{limits.ID_PATTERN}$")
_TRANSFER_ID = string(
    minLength=1, maxLength=limits.ID_LENGTH, description="Unique over inputs and outputs; default: `input-1`, …"
)
_PATH = string(minLength=1, description=f"Relative to the workspace, no `..`; at most {limits.PATH_BYTES} bytes.")
_MODE = string(pattern=f"^({limits.MODE_PATTERN})$", default=f"{limits.MODE_DEFAULT:04o}", description="Octal.")
_URL = string(maxLength=limits.URL_LENGTH, pattern="^[hH][tT][tT][pP][sS]?://", description="http or https. Never shown again.")
_HEADERS = strings(description="Request headers, sent in Latin-1. Never shown again.")

_FILE_INPUT = record(
    {
        "id": _TRANSFER_ID,
        "type": choice([InputType.FILE]),
        "path": _PATH,
        "mode": _MODE,
        "content": string(),
        "encoding": choice(["utf-8", "base64"], default="utf-8"),
    },
    ("type", "path", "content"),
)
_DOWNLOAD_INPUT = record(
    {
        "id": _TRANSFER_ID,
        "type": choice([InputType.DOWNLOAD]),
        "path": _PATH,
        "mode": _MODE,
        "url": _URL,
        "headers": _HEADERS,
        "sha256": string(pattern=f"^{limits.SHA256_PATTERN}$"),
    },
    ("type", "path", "url"),
)
_UPLOAD_OUTPUT = record(
    {
        "id": _TRANSFER_ID,
        "type": choice([OutputType.UPLOAD]),
        "path": _PATH,
        "url": _URL,
        "method": choice(get_args(UploadMethod), default="PUT"),
        "headers": _HEADERS,
    },
    ("type", "path", "url"),
)
_EVENT_OUTPUT = record(
    {"id": _TRANSFER_ID, "type": choice([OutputType.EVENT]), "path": _PATH},
    ("type", "path"),
)
_KEY = string(
    minLength=1,
    maxLength=limits.KEY_LENGTH,
    description="`whsec_` and 24 to 64 bytes in base64, or any string.",
)
_CALLBACK = record(
    {
        "url": _URL,
        "key": {
            "oneOf": [_KEY, {"type": "array", "items": _KEY, "minItems": 1, "maxItems": limits.KEYS_MAX}],
            "description": "Signs every event. While the receiver changes keys: the new key and the old one. Never shown again.",
        },
        "headers": strings(
            maxProperties=limits.CALLBACK_HEADERS_MAX,
            description="Sent with every event, in Latin-1. Headers that the service sets itself are refused. "
            f"Names and values have at most {limits.CALLBACK_HEADERS_BYTES} bytes in total. Never shown again.",
        ),
        "events": {
            "type": "array",
            "items": choice((*EVENT_TYPES, events.ALL)),
            "description": f"Empty or absent: all, as with `{events.ALL}`.",
        },
    },
    ("url",),
)
_NEW_JOB = record(
    {
        "id": {**_JOB_ID, "description": "Default: a UUID, version 7."},
        "image": string(minLength=1, maxLength=limits.IMAGE_LENGTH, description="A Docker image reference."),
        "command": {
            "oneOf": [string(minLength=1), {"type": "array", "items": string(), "minItems": 1}],
            "description": "A string for `/bin/sh -c`, or an exact argument vector; default: the image's own. "
            f"The string, or each argument, has at most {exec_limits.LONGEST} bytes.",
        },
        "cpu": {
            "type": "number",
            "minimum": limits.CPU_MIN,
            "maximum": limits.CPU_MAX,
            "default": limits.CPU_DEFAULT,
            "description": "Cores; more than three decimals are rounded up.",
        },
        "memory": integer(limits.MEMORY_MIN, limits.MEMORY_MAX, default=limits.MEMORY_DEFAULT, description="MiB."),
        "timeoutSeconds": integer(limits.TIMEOUT_MIN, limits.TIMEOUT_MAX, default=limits.TIMEOUT_DEFAULT),
        "environment": strings(
            maxProperties=limits.ENVIRONMENT_ENTRIES,
            description=f"Never shown again. Each `NAME=value` has at most {exec_limits.LONGEST} bytes.",
        ),
        "meta": strings(
            maxProperties=limits.META_ENTRIES,
            additionalProperties=string(maxLength=limits.META_VALUE_LENGTH),
            description=f"In every event. Keys of 1 to {limits.META_KEY_LENGTH} characters, {limits.META_BYTES} bytes in all.",
        ),
        "workspace": string(
            pattern="^/",
            default=limits.WORKSPACE_DEFAULT,
            description="An absolute path without `..`, not at or below `/dev`, `/proc` and `/sys`.",
        ),
        "inputs": array("NewInput", maxItems=limits.TRANSFERS),
        "outputs": array("NewOutput", maxItems=limits.TRANSFERS),
        "pullPolicy": choice(get_args(PullPolicy), default="missing"),
        "network": choice(get_args(Network), default="bridge"),
        "callback": ref("Callback"),
    },
    ("image",),
)

_COUNT = integer(0)
_TRANSFER_STATE = {"status": choice(TransferStatus.values), "bytes": _COUNT, "error": string()}
_SUMMARY = {
    "id": _JOB_ID,
    "status": choice(State.values),
    "image": string(),
    "meta": strings(),
    "createdAt": MOMENT,
    "cpu": {"type": "number"},
    "memory": {"type": "integer", "description": "MiB."},
    "timeoutSeconds": {"type": "integer"},
    "exitCode": {"type": "integer", "description": "-1 where nobody knows it, or the process never ran."},
    "reason": choice(Reason.values),
    "error": string(),
    "startedAt": MOMENT,
    "finishedAt": {**MOMENT, "description": "When it was decided."},
    "completedAt": {**MOMENT, "description": "When its last output was handled."},
    "node": string(),
}
_ALWAYS = ("id", "status", "image", "meta", "createdAt", "cpu", "memory", "timeoutSeconds")
_CHECKS = ("database", "broker", "engine")
_CHECK = record({"status": choice(["healthy", "unhealthy"]), "message": string()}, ("status",))

COMPONENTS: Final[dict[str, Schema]] = {
    "Error": record(
        {"error": string(description="One sentence."), "field": string(description="The member or parameter at fault.")},
        ("error",),
    ),
    "NewJob": _NEW_JOB,
    "NewInput": {"oneOf": [_FILE_INPUT, _DOWNLOAD_INPUT]},
    "NewOutput": {"oneOf": [_UPLOAD_OUTPUT, _EVENT_OUTPUT]},
    "Callback": _CALLBACK,
    "Accepted": record({"id": _JOB_ID, "status": choice([State.ACCEPTED])}, ("id", "status")),
    "JobSummary": record(_SUMMARY, _ALWAYS),
    "Job": record(
        {
            **_SUMMARY,
            "waiting": string(description="What an accepted job waits for."),
            "inputs": array("Input"),
            "outputs": array("Output"),
        },
        (*_ALWAYS, "inputs", "outputs"),
    ),
    "Input": record({"id": string(), "type": choice(InputType.values), **_TRANSFER_STATE}, ("id", "type", "status")),
    "Output": record({"id": string(), "type": choice(OutputType.values), **_TRANSFER_STATE}, ("id", "type", "status")),
    "JobPage": record({"jobs": array("JobSummary"), "nextCursor": string()}, ("jobs",)),
    "LogLine": record(
        {
            "seq": integer(1),
            "stream": choice(Stream.values),
            "time": string(format="date-time"),
            "text": string(),
            "partial": {"type": "boolean", "enum": [True], "description": "The line goes on in the next one of its stream."},
        },
        ("seq", "stream", "time", "text"),
    ),
    "LogPage": record(
        {
            "lines": array("LogLine"),
            "next": {**_COUNT, "description": "The next page's `after`."},
            "complete": {"type": "boolean", "description": "The log has ended and this answer reaches its end."},
        },
        ("lines", "next", "complete"),
    ),
    "Attempt": record(
        {
            "time": MOMENT,
            "status": integer(100, 999, description="Of the answer; absent where there was none."),
            "latencyMs": _COUNT,
            "error": string(),
            "answer": string(description="How its body begins."),
        },
        ("time", "latencyMs"),
    ),
    "Event": record(
        {
            "id": string(format="uuid"),
            "type": choice(EVENT_TYPES),
            "time": string(format="date-time"),
            "jobsequence": integer(1),
            "state": choice(Event.State.values),
            "nextAttemptAt": MOMENT,
            "attempts": array("Attempt", description="The oldest first."),
        },
        ("id", "type", "time", "jobsequence", "state", "attempts"),
    ),
    "EventPage": record({"events": array("Event"), "nextCursor": string()}, ("events",)),
    "Redelivery": record({"redelivered": _COUNT}, ("redelivered",)),
    "Alive": record({"status": choice(["healthy"])}, ("status",)),
    "Readiness": record(
        {
            "status": choice(["healthy", "unhealthy"]),
            "checks": record(dict.fromkeys(_CHECKS, _CHECK), _CHECKS),
        },
        ("status", "checks"),
    ),
}
