"""What happened to a job, as the payload of an event. The only caller of `callbacks.outbox`.

Call these inside the transaction that commits the change they report.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from callbacks import outbox
from callbacks.cloudevents import RawJson
from jobs.errors import ErrorCode
from jobs.log_lines import Ending, Line
from jobs.models import Input, Job, Output
from jobs.spec import CallbackSpec
from jobs.states import NO_EXIT_CODE, Reason, State

_SERVICE = "orchestrator/service"
_SIDECAR = "orchestrator/sidecar"

START = "orchestrator.job.start"
LOG = "orchestrator.job.log"
EXIT = "orchestrator.job.exit"
INPUT = "orchestrator.job.input"
OUTPUT = "orchestrator.job.output"
COMPLETE = "orchestrator.job.complete"
ALL = "orchestrator.job.*"  # in a request: every type


def duration_seconds(job: Job) -> float:
    """From the process's start to its end (or the decision that ends it); 0 where it never ran."""
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return _rounded((job.finished_at - job.started_at).total_seconds())


def _rounded(seconds: float) -> float:
    return max(0.0, round(seconds, 3))


def subscribe(job: Job, callback: CallbackSpec) -> None:
    """Send this job's events to that URL from now on."""
    outbox.subscribe(job.uuid, job.id, callback.url, callback.events, keys=callback.keys, headers=callback.headers)


def forget(uuids: Iterable[UUID]) -> None:
    """Delete what is kept of these jobs' events."""
    outbox.forget(list(uuids))


def undelivered(uuid: UUID, most: int) -> int:
    """How many of a job's events its callback has not taken yet, counted up to `most`. No transaction is needed."""
    return outbox.pending(uuid, most)


def _publish(job: Job, type_: str, source: str, data: Mapping[str, Any]) -> None:
    outbox.publish(job.uuid, type_, source, {"jobId": job.id, "meta": job.meta, **data})


def started(job: Job) -> None:
    _publish(job, START, _SERVICE, {})


def logged(job: Job, lines: Sequence[Line]) -> None:
    """Publish lines of one stream."""
    data: dict[str, Any] = {"lines": [line.text for line in lines], "stream": lines[0].stream}
    if partial := [index for index, line in enumerate(lines) if line.ending == Ending.PARTIAL]:
        data["partialLines"] = partial
    _publish(job, LOG, _SERVICE, data | _dropped(job))


def exited(job: Job) -> None:
    data: dict[str, Any] = {
        "exitCode": NO_EXIT_CODE if job.exit_code is None else job.exit_code,
        "status": job.status,
        "image": job.image,
        "durationSeconds": duration_seconds(job),
    }
    if job.reason:
        data["reason"] = job.reason
    if job.status != State.COMPLETED:
        data["error"] = _error(_exit_error_code(job), job.error or "the job was cancelled")
    _publish(job, EXIT, _SERVICE, data | _dropped(job))


def _exit_error_code(job: Job) -> ErrorCode:
    """Return the code of a job that is not completed. One that was stopped may have ended with any exit code, 0 included."""
    if job.reason == Reason.OOM:
        return ErrorCode.JOB_OOM
    if job.started_at is None or job.exit_code in (None, NO_EXIT_CODE):
        return ErrorCode.JOB_FAILED
    return ErrorCode.JOB_EXIT_NONZERO


def _error(code: ErrorCode, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def _dropped(job: Job) -> dict[str, int]:
    """How many lines were lost before this event and since the last one that told of any."""
    return {"droppedLines": job.log_dropped} if job.log_dropped else {}


def input_done(job: Job, item: Input, seconds: float, code: ErrorCode | None = None) -> None:
    """Publish that an input is in place, or has failed with `code`; the transfer took `seconds`."""
    data: dict[str, Any] = {
        "inputId": item.name,
        "status": item.status,
        "path": item.path,
        "durationSeconds": _rounded(seconds),
    }
    if code is not None:
        data["error"] = _error(code, item.error)
    _publish(job, INPUT, _SIDECAR, data)


def output_done(job: Job, item: Output, seconds: float, code: ErrorCode | None = None, *, content: str | None = None) -> None:
    """Publish that an output was taken out, or has failed with `code`; the transfer took `seconds`.

    `content` is what an `event` output holds, as JSON.
    """
    data: dict[str, Any] = {
        "outputId": item.name,
        "outputType": item.type,
        "status": item.status,
        "durationSeconds": _rounded(seconds),
    }
    if content is not None:
        data["content"] = RawJson(content)
    if code is not None:
        data["error"] = _error(code, item.error)
    _publish(job, OUTPUT, _SIDECAR, data)


def completed(job: Job) -> None:
    _publish(job, COMPLETE, _SERVICE, {})
