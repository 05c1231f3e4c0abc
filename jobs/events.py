"""Publishes what happens to a job: builds the data of each event and hands it to `callbacks.outbox`.

Call these functions inside the transaction that commits the change they report.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from callbacks import outbox
from callbacks.cloudevents import RawJson
from jobs.errors import ErrorCode
from jobs.log_lines import Ending, Group
from jobs.models import Input, Job, Output
from jobs.spec import CallbackSpec
from jobs.states import NO_EXIT_CODE, Reason, State
from jobs.usage import usage_of
from orchestrator_site.base.db.statements import Statement

_SERVICE = "orchestrator/service"
_SIDECAR = "orchestrator/sidecar"

START = "orchestrator.job.start"
LOG = "orchestrator.job.log"
EXIT = "orchestrator.job.exit"
INPUT = "orchestrator.job.input"
OUTPUT = "orchestrator.job.output"
COMPLETE = "orchestrator.job.complete"
ALL = "orchestrator.job.*"  # in a request: all types


def duration_seconds(job: Job) -> float:
    """Return the seconds from the start of the process to its end, or to the decision that ends it; 0 if it never ran."""
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return _rounded((job.finished_at - job.started_at).total_seconds())


def _rounded(seconds: float) -> float:
    return max(0.0, round(seconds, 3))


def subscription(job: Job, callback: CallbackSpec, client: str) -> list[Statement]:
    """Return the statements after which this job's events are sent to its callback. `client` names the key that posted it."""
    return outbox.subscription(
        job.uuid,
        job.id,
        callback.url,
        callback.events,
        owner=job.namespace,
        client=client,
        keys=callback.keys,
        headers=callback.headers,
    )


def callback_of(uuid: UUID) -> CallbackSpec | None:
    """Return the callback of a stored job, secrets included; None if it has none."""
    found = outbox.subscriber(uuid)
    if found is None:
        return None
    return CallbackSpec(url=found.url, keys=found.keys, headers=found.headers, events=found.types)


def client_of(uuid: UUID) -> str:
    """Return the name of the key that posted a job with a callback."""
    return outbox.client_of(uuid)


def forget(uuids: Iterable[UUID]) -> None:
    """Delete the events of these jobs."""
    outbox.forget(list(uuids))


def undelivered(uuid: UUID, limit: int) -> int:
    """Return how many of a job's events are still to be delivered, counting up to `limit`. Needs no transaction."""
    return outbox.pending(uuid, limit)


def is_limited(uuid: UUID) -> bool:
    """Return whether a job's events are held up by a limit on what is sent per second. Needs no transaction."""
    return outbox.is_limited(uuid)


def _publish(job: Job, type_: str, source: str, data: dict[str, Any]) -> None:
    outbox.publish(job.uuid, type_, source, _common(job) | data)


def _common(job: Job) -> dict[str, Any]:
    """Return the members of every event's `data`."""
    return {"jobId": job.id, "meta": job.meta}


def started(job: Job) -> None:
    _publish(job, START, _SERVICE, {})


def logged(job: Job, groups: Sequence[Group]) -> None:
    """Publish a `log` event for each group of lines. The first one reports the dropped lines."""
    data = [_log_data(group) for group in groups]
    if data:
        data[0] |= _dropped(job)
        outbox.publish_all(job.uuid, LOG, _SERVICE, [_common(job) | of_event for of_event in data])


def _log_data(group: Group) -> dict[str, Any]:
    data: dict[str, Any] = {"lines": RawJson(group.texts), "stream": group.lines[0].stream}
    partial = Ending.PARTIAL  # looked up once: to look up a member of an enum takes longer than to compare it
    if indexes := [index for index, line in enumerate(group.lines) if line.ending is partial]:
        data["partialLines"] = indexes
    return data


def exited(job: Job) -> None:
    data: dict[str, Any] = {
        "exitCode": NO_EXIT_CODE if job.exit_code is None else job.exit_code,
        "status": job.status,
        "image": job.image,
        "durationSeconds": duration_seconds(job),
    }
    if usage := usage_of(job):
        data["usage"] = usage
    if job.reason:
        data["reason"] = job.reason
    if job.status != State.COMPLETED:
        data["error"] = _error(_exit_error_code(job), job.error or "the job was cancelled")
    _publish(job, EXIT, _SERVICE, data | _dropped(job))


def _exit_error_code(job: Job) -> ErrorCode:
    """Return the code for a job that did not complete. If it was stopped, its exit code may be any number, even 0."""
    if job.reason == Reason.OOM:
        return ErrorCode.JOB_OOM
    if job.started_at is None or job.exit_code in (None, NO_EXIT_CODE):
        return ErrorCode.JOB_FAILED
    return ErrorCode.JOB_EXIT_NONZERO


def _error(code: ErrorCode, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def _dropped(job: Job) -> dict[str, int]:
    """Return the number of lines lost since the last event that reported any, as members of `data`."""
    return {"droppedLines": job.log_dropped} if job.log_dropped else {}


def input_finished(job: Job, item: Input, seconds: float, code: ErrorCode | None = None) -> None:
    """Publish that an input is in place, or failed with `code`, after `seconds`."""
    data: dict[str, Any] = {
        "inputId": item.name,
        "status": item.status,
        "path": item.path,
        "durationSeconds": _rounded(seconds),
    }
    if code is not None:
        data["error"] = _error(code, item.error)
    _publish(job, INPUT, _SIDECAR, data)


def output_finished(job: Job, item: Output, seconds: float, code: ErrorCode | None = None, *, content: str | None = None) -> None:
    """Publish that an output was sent, or failed with `code`, after `seconds`.

    `content` is that of an `event` output, as JSON.
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
