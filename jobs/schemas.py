"""The shapes of the API as JSON Schema, for the OpenAPI document. The numbers come from `jobs.limits`."""

from typing import Any, Final, get_args

from jobs import limits
from jobs.serializers import EVENT_TYPES
from jobs.spec import Network, PullPolicy, UploadMethod
from jobs.states import InputType, OutputType, Reason, State, Stream, TransferStatus

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: dict[str, Schema], required: tuple[str, ...] = (), **more: Any) -> Schema:
    """One that takes no other members."""
    shape: Schema = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    return shape | ({"required": list(required)} if required else {})


def _string(**more: Any) -> Schema:
    return {"type": "string", **more}


def _integer(low: int, high: int, **more: Any) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, **more}


def _choice(choices: Any, **more: Any) -> Schema:
    return _string(enum=[str(choice) for choice in choices], **more)


def _strings(**more: Any) -> Schema:
    return {"type": "object", "additionalProperties": _string(), **more}


_MOMENT = _string(format="date-time", description="UTC with milliseconds.")
_JOB_ID = _string(minLength=1, maxLength=limits.ID_LENGTH, pattern=f"^{limits.ID_PATTERN}$")
_TRANSFER_ID = _string(
    minLength=1, maxLength=limits.ID_LENGTH, description="Unique over inputs and outputs; default: `input-1`, …"
)
_PATH = _string(minLength=1, description=f"Relative to the workspace, no `..`; at most {limits.PATH_BYTES} bytes.")
_MODE = _string(pattern=f"^({limits.MODE_PATTERN})$", default=f"{limits.MODE_DEFAULT:04o}", description="Octal.")
_URL = _string(maxLength=limits.URL_LENGTH, pattern="^[hH][tT][tT][pP][sS]?://", description="http or https. Never shown again.")
_HEADERS = _strings(description="Request headers. Never shown again.")

_FILE_INPUT = _object(
    {
        "id": _TRANSFER_ID,
        "type": _choice([InputType.FILE]),
        "path": _PATH,
        "mode": _MODE,
        "content": _string(),
        "encoding": _choice(["utf-8", "base64"], default="utf-8"),
    },
    ("type", "path", "content"),
)
_DOWNLOAD_INPUT = _object(
    {
        "id": _TRANSFER_ID,
        "type": _choice([InputType.DOWNLOAD]),
        "path": _PATH,
        "mode": _MODE,
        "url": _URL,
        "headers": _HEADERS,
        "sha256": _string(pattern=f"^{limits.SHA256_PATTERN}$"),
    },
    ("type", "path", "url"),
)
_UPLOAD_OUTPUT = _object(
    {
        "id": _TRANSFER_ID,
        "type": _choice([OutputType.UPLOAD]),
        "path": _PATH,
        "url": _URL,
        "method": _choice(get_args(UploadMethod), default="PUT"),
        "headers": _HEADERS,
    },
    ("type", "path", "url"),
)
_EVENT_OUTPUT = _object(
    {"id": _TRANSFER_ID, "type": _choice([OutputType.EVENT]), "path": _PATH},
    ("type", "path"),
)
_CALLBACK = _object(
    {
        "url": _URL,
        "key": _string(
            minLength=1, maxLength=limits.KEY_LENGTH, description="Signs every event; `whsec_` and base64, or any string."
        ),
        "events": {"type": "array", "items": _choice(EVENT_TYPES), "description": "Empty or absent: all."},
    },
    ("url",),
)
_NEW_JOB = _object(
    {
        "id": {**_JOB_ID, "description": "Default: a UUID, version 7."},
        "image": _string(minLength=1, maxLength=limits.IMAGE_LENGTH, description="A Docker image reference."),
        "command": {
            "oneOf": [_string(minLength=1), {"type": "array", "items": _string(), "minItems": 1}],
            "description": "A string for `/bin/sh -c`, or an exact argument vector; default: the image's own.",
        },
        "cpu": {
            "type": "number",
            "minimum": limits.CPU_MIN,
            "maximum": limits.CPU_MAX,
            "default": limits.CPU_DEFAULT,
            "description": "Cores; more than three decimals are rounded up.",
        },
        "memory": _integer(limits.MEMORY_MIN, limits.MEMORY_MAX, default=limits.MEMORY_DEFAULT, description="MiB."),
        "timeoutSeconds": _integer(limits.TIMEOUT_MIN, limits.TIMEOUT_MAX, default=limits.TIMEOUT_DEFAULT),
        "environment": _strings(maxProperties=limits.ENVIRONMENT_ENTRIES, description="Never shown again."),
        "meta": _strings(
            maxProperties=limits.META_ENTRIES,
            additionalProperties=_string(maxLength=limits.META_VALUE_LENGTH),
            description=f"In every event. Keys of 1 to {limits.META_KEY_LENGTH} characters, {limits.META_BYTES} bytes in all.",
        ),
        "workspace": _string(pattern="^/", default=limits.WORKSPACE_DEFAULT, description="An absolute path without `..`."),
        "inputs": {"type": "array", "items": ref("NewInput"), "maxItems": limits.TRANSFERS},
        "outputs": {"type": "array", "items": ref("NewOutput"), "maxItems": limits.TRANSFERS},
        "pullPolicy": _choice(get_args(PullPolicy), default="missing"),
        "network": _choice(get_args(Network), default="bridge"),
        "callback": ref("Callback"),
    },
    ("image",),
)

_COUNT = {"type": "integer", "minimum": 0}
_TRANSFER_STATE = {"status": _choice(TransferStatus.values), "bytes": _COUNT, "error": _string()}
_SUMMARY = {
    "id": _JOB_ID,
    "status": _choice(State.values),
    "image": _string(),
    "meta": _strings(),
    "createdAt": _MOMENT,
    "cpu": {"type": "number"},
    "memory": {"type": "integer", "description": "MiB."},
    "timeoutSeconds": {"type": "integer"},
    "exitCode": {"type": "integer", "description": "-1 where nobody knows it, or the process never ran."},
    "reason": _choice(Reason.values),
    "error": _string(),
    "startedAt": _MOMENT,
    "finishedAt": {**_MOMENT, "description": "When it was decided."},
    "completedAt": {**_MOMENT, "description": "When its last output was handled."},
    "node": _string(),
}
_ALWAYS = ("id", "status", "image", "meta", "createdAt", "cpu", "memory", "timeoutSeconds")
_CHECKS = ("database", "broker", "engine")
_CHECK = _object({"status": _choice(["healthy", "unhealthy"]), "message": _string()}, ("status",))

COMPONENTS: Final[dict[str, Schema]] = {
    "Error": _object(
        {"error": _string(description="One sentence."), "field": _string(description="The member or parameter at fault.")},
        ("error",),
    ),
    "NewJob": _NEW_JOB,
    "NewInput": {"oneOf": [_FILE_INPUT, _DOWNLOAD_INPUT]},
    "NewOutput": {"oneOf": [_UPLOAD_OUTPUT, _EVENT_OUTPUT]},
    "Callback": _CALLBACK,
    "Accepted": _object({"id": _JOB_ID, "status": _choice([State.ACCEPTED])}, ("id", "status")),
    "JobSummary": _object(_SUMMARY, _ALWAYS),
    "Job": _object(
        {
            **_SUMMARY,
            "waiting": _string(description="What an accepted job waits for."),
            "inputs": {"type": "array", "items": ref("Input")},
            "outputs": {"type": "array", "items": ref("Output")},
        },
        (*_ALWAYS, "inputs", "outputs"),
    ),
    "Input": _object({"id": _string(), "type": _choice(InputType.values), **_TRANSFER_STATE}, ("id", "type", "status")),
    "Output": _object({"id": _string(), "type": _choice(OutputType.values), **_TRANSFER_STATE}, ("id", "type", "status")),
    "JobPage": _object({"jobs": {"type": "array", "items": ref("JobSummary")}, "nextCursor": _string()}, ("jobs",)),
    "LogLine": _object(
        {
            "seq": {"type": "integer", "minimum": 1},
            "stream": _choice(Stream.values),
            "time": _string(format="date-time"),
            "text": _string(),
        },
        ("seq", "stream", "time", "text"),
    ),
    "LogPage": _object(
        {
            "lines": {"type": "array", "items": ref("LogLine")},
            "next": {**_COUNT, "description": "The next page's `after`."},
            "complete": {"type": "boolean", "description": "The log has ended and this answer reaches its end."},
        },
        ("lines", "next", "complete"),
    ),
    "Alive": _object({"status": _choice(["healthy"])}, ("status",)),
    "Readiness": _object(
        {
            "status": _choice(["healthy", "unhealthy"]),
            "checks": _object(dict.fromkeys(_CHECKS, _CHECK), _CHECKS),
        },
        ("status", "checks"),
    ),
}
