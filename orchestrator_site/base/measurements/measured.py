"""A function for each thing that is counted or measured. None of them raises, whatever the state of the disk."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from orchestrator_site.base.measurements import metrics
from orchestrator_site.base.measurements.process_counts import counts

OTHER: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SERVER_ERROR: Final = 500
_MIB: Final = 1024**2


class Direction(StrEnum):
    """Whether a file goes into a container or comes out of it."""

    IN = "in"
    OUT = "out"


def request_answered(method: str, path: str, status: int, seconds: float) -> None:
    """Count a request. `path` is the pattern of its route, or empty if there is none."""
    known_method = method if method in _METHODS else OTHER
    metrics.HTTP_REQUEST_DURATION.observe(seconds, known_method, path or OTHER, str(status))
    request_refused(status)


def request_refused(status: int) -> None:
    """Count a request that the web server answered itself, because it was invalid or there were too many."""
    metrics.HTTP_REQUESTS.add()
    if status >= _SERVER_ERROR:
        metrics.HTTP_ERRORS.add()


def job_accepted(image: str) -> None:
    """Count a job that was stored."""
    metrics.JOBS.add(counts.images.label(image))


def job_started(created: datetime, started: datetime) -> None:
    """Measure how long a job waited for its start. Clocks may differ: it is never negative."""
    metrics.JOB_QUEUE.observe(max(0.0, (started - created).total_seconds()))


def job_decided(image: str, reason: str, started: datetime | None, finished: datetime | None) -> None:
    """Count a job that was decided. `reason` is empty if it completed."""
    if reason:
        metrics.JOB_ERRORS.add(reason)
    if started is not None and finished is not None:
        seconds = max(0.0, (finished - started).total_seconds())
        metrics.JOB_DURATION.observe(seconds, counts.images.label(image), "false" if reason else "true")


def job_exited(image: str, cpu_seconds: float | None, peak_memory_bytes: int | None, memory_mib: int) -> None:
    """Measure what a job has used, as far as it is known, with its limit of memory."""
    if cpu_seconds is not None:
        metrics.JOB_CPU.add(counts.images.label(image), amount=cpu_seconds)
    if peak_memory_bytes is not None:
        metrics.JOB_PEAK_MEMORY.observe(peak_memory_bytes / (memory_mib * _MIB), counts.images.label(image))


def event_attempted(status: int | None, seconds: float) -> None:
    """Count an attempt to deliver an event. `status` is that of the answer."""
    metrics.DISPATCHER_DURATION.observe(seconds)
    if status is not None and 200 <= status < 300:
        metrics.DISPATCHER_DELIVERED.add()
    else:
        metrics.DISPATCHER_FAILED.add("no_answer" if status is None else f"{min(max(status // 100, 3), 5)}xx")


def attempt_interrupted() -> None:
    """Count an attempt whose process ended."""
    metrics.DISPATCHER_FAILED.add("interrupted")


def events_died(number: int) -> None:
    """Count events that were given up."""
    metrics.DISPATCHER_DEAD.add(amount=number)


def transferred(direction: Direction, size: int) -> None:
    """Count bytes of an input or output that were downloaded or uploaded."""
    metrics.TRANSFER_BYTES.add(direction, amount=size)
