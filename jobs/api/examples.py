"""The examples of the OpenAPI document: one job, what a client posts for it and what it gets."""

import json
from typing import Any, Final

_ID: Final = "report-2026-01-31"
_IMAGE: Final = "python:3.12-slim"
_CREATED: Final = "2026-01-31T12:00:00.000Z"

SHELL_COMMAND: Final = {"image": "alpine:latest", "command": "echo hello; exit 3"}
FILES: Final = {
    "id": _ID,
    "image": _IMAGE,
    "command": ["python", "report.py", "sales.csv"],
    "cpu": 0.5,
    "memory": 256,
    "timeoutSeconds": 600,
    "environment": {"REGION": "eu"},
    "meta": {"team": "reports"},
    "inputs": [
        {"type": "file", "path": "report.py", "content": "print('hello')\n"},
        {
            "id": "sales",
            "type": "download",
            "path": "sales.csv",
            "url": "https://files.example.com/sales.csv",
            "headers": {"X-Tenant": "7"},
        },
    ],
    "outputs": [
        {"id": "report", "type": "upload", "path": "out/report.pdf", "url": "https://files.example.com/report.pdf"},
        {"id": "summary", "type": "event", "path": "summary.json"},
    ],
    "callback": {"url": "https://hooks.example.com/jobs", "key": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
}
WRONG_URL: Final = {"error": "the URL must begin with http:// or https://", "field": "inputs[1].url"}
ACCEPTED: Final = {"id": _ID, "status": "accepted"}

_REQUESTED: Final = {"cpu": 0.5, "memory": 256, "timeoutSeconds": 600}
_RAN: Final = {
    "startedAt": "2026-01-31T12:00:00.230Z",
    "finishedAt": "2026-01-31T12:00:04.117Z",
    "completedAt": "2026-01-31T12:00:04.530Z",
    "node": "node-a",
}


def _job(status: str, **members: Any) -> dict[str, Any]:
    known = {"id": _ID, "namespace": "default", "status": status, "image": _IMAGE}
    return {**known, "meta": {"team": "reports"}, "createdAt": _CREATED, **_REQUESTED, **members}


def _files(inputs: tuple[str, str], outputs: tuple[str, str], **sizes: int) -> dict[str, Any]:
    """Return the inputs and outputs with these statuses, and with sizes by id."""
    kinds = [("input-1", "file"), ("sales", "download"), ("report", "upload"), ("summary", "event")]
    shown = [
        {"id": name, "type": kind, "status": status, **({"bytes": sizes[name]} if name in sizes else {})}
        for (name, kind), status in zip(kinds, [*inputs, *outputs], strict=True)
    ]
    return {"inputs": shown[:2], "outputs": shown[2:]}


_COMPLETED: Final = _job("completed", exitCode=0, **_RAN)
_SIZES: Final = {"input-1": 15, "sales": 48210, "report": 90112, "summary": 312}
_FILES_AND_USAGE: Final = {
    **_files(("success", "success"), ("success", "success"), **_SIZES),
    "usage": {"cpuSeconds": 1.842, "peakMemoryBytes": 96468992, "inputBytes": 48225, "outputBytes": 90424, "logBytes": 24},
}
JOB_COMPLETED: Final = {**_COMPLETED, **_FILES_AND_USAGE}
JOB_WAITING: Final = {
    **_job("accepted", waiting="17 jobs ahead"),
    **_files(("pending", "pending"), ("pending", "pending")),
}
JOB_FAILED: Final = {**_job("failed", exitCode=3, reason="exit_code", error="exit code 3", **_RAN), **_FILES_AND_USAGE}
JOBS: Final = {"jobs": [_COMPLETED], "nextCursor": "AaIKIeA7dASFuxWcSeQxoQ"}

LINES: Final = [
    {"seq": 1, "stream": "stdout", "time": "2026-01-31T12:00:00.300123456Z", "text": "hello"},
    {"seq": 2, "stream": "stderr", "time": "2026-01-31T12:00:00.300456789Z", "text": "warning: no sales"},
]
LOG_PAGE: Final = {"lines": LINES, "next": 2, "complete": True}
LOG_TEXT: Final = "hello\nwarning: no sales\n"
LOG_EVENTS: Final = (
    f"retry: 1000\n\nid: 2\ndata: {json.dumps(LOG_PAGE)}\n\n"
    f"event: end\nid: 2-end\ndata: {json.dumps({**LOG_PAGE, 'lines': []})}\n\n"
)

EVENTS: Final = {
    "events": [
        {
            "id": "019ab2c4-3b92-7730-9ed2-cf7968a3e81c",
            "type": "orchestrator.job.exit",
            "time": "2026-01-31T12:00:04.190231Z",
            "jobsequence": 6,
            "state": "pending",
            "nextAttemptAt": "2026-01-31T12:00:15.730Z",
            "attempts": [
                {
                    "time": "2026-01-31T12:00:04.202Z",
                    "latencyMs": 5003,
                    "error": "cannot connect to hooks.example.com port 443: timed out after 5 s",
                },
                {
                    "time": "2026-01-31T12:00:10.301Z",
                    "status": 503,
                    "latencyMs": 41,
                    "error": "answered 503",
                    "answer": "busy",
                },
            ],
        }
    ]
}
REDELIVERED: Final = {"redelivered": 1}
