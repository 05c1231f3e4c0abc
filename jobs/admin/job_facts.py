"""What the page of a job says about it, in words and groups."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.urls import reverse

from jobs.models import Job
from jobs.states import NO_EXIT_CODE, InputType, OutputType
from jobs.transfers.formatting import format_size
from orchestrator_site.base.egress.http_client import redact
from orchestrator_site.base.values.durations import format_duration

_SHORT_SECONDS: Final = 1.0  # the start of the container, about 0.03 s of CPU time, would be much of a shorter job's average


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a group. `link` is where it leads, and `part` a percentage of a limit, if it has one."""

    name: str
    value: object
    link: str = ""
    part: float | None = None


@dataclass(frozen=True, slots=True)
class File:
    """An input or output, without secrets."""

    name: str
    what: str
    path: str
    status: str
    size: str
    error: str


def groups(job: Job) -> list[tuple[str, list[Fact]]]:
    """Return the groups of facts, each with its title."""
    return [("What it runs", list(_description(job))), ("Where it runs", list(_place(job)))]


def _description(job: Job) -> Iterator[Fact]:
    yield Fact("Namespace", job.namespace)
    yield Fact("Image", job.image)
    yield Fact("Pull policy", job.pull_policy)
    yield Fact("Network", "isolated bridge" if job.network == "bridge" else job.network)
    yield Fact("Workspace", job.workspace)
    for name, value in job.meta.items():
        yield Fact(f"meta.{name}", value)


def _place(job: Job) -> Iterator[Fact]:
    if job.node is not None:
        yield Fact("Node", job.node.name, reverse("admin:jobs_node_change", args=(job.node_id,)))
    if job.owner is not None:
        yield Fact("Worker", str(job.owner), reverse("admin:jobs_worker_change", args=(job.owner_id,)))
    if job.exit_code is not None and job.started_at is not None:
        yield Fact("Exit code", "unknown" if job.exit_code == NO_EXIT_CODE else job.exit_code)
    if job.claims > 1:
        yield Fact("Claimed", f"{job.claims} times: its start failed, or its worker stopped or died")
    if job.refused_starts:
        yield Fact("Failed starts", job.refused_starts)
    if job.owner_deaths:
        yield Fact("Worker deaths in a row", job.owner_deaths)
    if job.request_id:
        yield Fact("Request ID", job.request_id)
    yield Fact("UUID", job.uuid)


def usage(job: Job, now: datetime) -> list[Fact]:
    """Return what the job used, each next to its limit."""
    return list(_usage(job, now))


def _usage(job: Job, now: datetime) -> Iterator[Fact]:
    ran = _seconds(job, now)
    limit = format_duration(job.timeout_seconds)
    text = f"at most {limit}" if ran is None else f"{format_duration(ran)} of {limit}"
    yield Fact("Run time", text, part=_part(ran, job.timeout_seconds))
    yield _cpu(job)
    yield _memory(job)
    for name, items in (("Inputs", job.inputs.all()), ("Outputs", job.outputs.all())):
        sizes = [item.bytes for item in items if item.bytes is not None]
        if sizes:
            yield Fact(name, format_size(sum(sizes)))
    if job.log_bytes:
        yield Fact("Stored log", f"{format_size(job.log_bytes)}{', cut at LOG_LIMIT' if job.log_full else ''}")


def _cpu(job: Job) -> Fact:
    requested = job.cpu_millis / 1000
    if job.cpu_seconds is None:
        return Fact("CPU", f"{requested:g} requested")
    used = f"{format_duration(job.cpu_seconds)} of CPU time"
    ran = _seconds(job, job.finished_at) if job.finished_at else None
    if ran is None or ran < _SHORT_SECONDS:
        return Fact("CPU", f"{used}, with the start of its container; {requested:g} requested")
    cores = job.cpu_seconds / ran
    return Fact("CPU", f"{used}, {round(cores, 2):g} of {requested:g} on average", part=_part(cores, requested))


def _memory(job: Job) -> Fact:
    if job.peak_memory_bytes is None:
        return Fact("Memory", f"{job.memory_mib} MiB requested")
    text = f"at most {format_size(job.peak_memory_bytes)} of {job.memory_mib} MiB"
    return Fact("Memory", text, part=_part(job.peak_memory_bytes, job.memory_mib * 1024**2))


def _seconds(job: Job, now: datetime) -> float | None:
    if job.started_at is None:
        return None
    return max(0.0, ((job.finished_at or now) - job.started_at).total_seconds())


def _part(used: float | None, limit: float) -> float | None:
    """Return the percentage of the limit that was used, for a bar."""
    return None if used is None or not limit else round(min(1.0, used / limit) * 100, 1)


def files(items: Any) -> list[File]:
    """Return a job's inputs or outputs, given rows with their `shown_url`."""
    return [_file(item) for item in items]


def _file(item: Any) -> File:
    size = "" if item.bytes is None else format_size(item.bytes)
    return File(item.name, _what(item), item.path, item.status, size, item.error)


def _what(item: Any) -> str:
    match item.type:
        case InputType.FILE:
            return "sent with the job"
        case InputType.DOWNLOAD:
            return f"from {redact(item.shown_url)}"
        case OutputType.UPLOAD:
            return f"to {redact(item.shown_url)}"
    return "in its event"
