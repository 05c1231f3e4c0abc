"""The counters and histograms of the service. docs/observability.md describes them for operators."""

from dataclasses import dataclass
from typing import Final

from orchestrator_site.base.measurements.process_counts import Series, counts

MINUTE: Final = 60.0
HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that only grows. The series in `known` are shown before they are counted, so that a rate sees the first event."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()

    def add(self, *values: str, amount: float = 1.0) -> None:
        """Add `amount` to the series with these values of the labels."""
        counts.add(Series(self.name, values, ()), amount)

    def value(self, *values: str) -> float:
        """Return what this process has counted."""
        return counts.numbers(Series(self.name, values, ()))[0]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values were in which range. `bounds` are the upper ends of its buckets, in the unit that ends its name."""

    name: str
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]

    def observe(self, value: float, *values: str) -> None:
        """Count `value` in the series with these values of the labels."""
        counts.observe(Series(self.name, values, self.bounds), value)

    def count(self, *values: str) -> float:
        """Return how many values this process has counted."""
        return sum(counts.numbers(Series(self.name, values, self.bounds))[:-1])

    def sum(self, *values: str) -> float:
        """Return the sum of the values that this process has counted."""
        return counts.numbers(Series(self.name, values, self.bounds))[-1]


_ANSWER: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DELIVERY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
_QUEUE: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR)
_PART: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_RUN: Final = (0.1, 0.5, 1.0, 5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, 24 * HOUR)

REASONS: Final = (
    "exit_code",
    "oom",
    "timeout",
    "disk",
    "cancelled",
    "image_pull",
    "input_failed",
    "start_failed",
    "engine_lost",
)
FAILURES: Final = ("no_answer", "3xx", "4xx", "5xx", "interrupted")

HTTP_REQUEST_DURATION: Final = Histogram(
    "http_request_duration_seconds",
    "Time until an answer began, without what a long poll waited.",
    ("method", "path", "status"),
    _ANSWER,
)
HTTP_REQUESTS: Final = Counter("http_requests_total", "Requests that were answered.")
HTTP_ERRORS: Final = Counter("http_errors_total", "Requests that were answered with a status of 500 or more.")

JOB_DURATION: Final = Histogram(
    "job_duration_seconds", "Time from the start of a job's process to its end.", ("image", "success"), _RUN
)
JOB_QUEUE: Final = Histogram("job_queue_seconds", "Time from the acceptance of a job to the start of its process.", (), _QUEUE)
JOBS: Final = Counter("jobs_total", "Jobs that were accepted.", ("image",))
JOB_ERRORS: Final = Counter(
    "job_errors_total", "Jobs that failed or were cancelled.", ("reason",), tuple((reason,) for reason in REASONS)
)

JOB_CPU: Final = Counter("job_cpu_seconds_total", "CPU time of all processes of jobs, counted at their end.", ("image",))
JOB_PEAK_MEMORY: Final = Histogram(
    "job_peak_memory_ratio", "The most memory that a job had at one time, as a part of its limit.", ("image",), _PART
)

DISPATCHER_DURATION: Final = Histogram(
    "dispatcher_duration_seconds", "Time that an attempt to deliver an event took.", (), _DELIVERY
)
DISPATCHER_DELIVERED: Final = Counter("dispatcher_delivered_total", "Events that were delivered.")
DISPATCHER_FAILED: Final = Counter(
    "dispatcher_failed_total", "Attempts to deliver an event that failed.", ("reason",), tuple((reason,) for reason in FAILURES)
)
DISPATCHER_DEAD: Final = Counter("dispatcher_dead_total", "Events that were given up.")

TRANSFER_BYTES: Final = Counter(
    "transfer_bytes_total", "Bytes of inputs that were downloaded, and of outputs uploaded.", ("direction",), (("in",), ("out",))
)

METRICS: Final = (
    HTTP_REQUEST_DURATION,
    HTTP_REQUESTS,
    HTTP_ERRORS,
    JOB_DURATION,
    JOB_QUEUE,
    JOBS,
    JOB_ERRORS,
    JOB_CPU,
    JOB_PEAK_MEMORY,
    DISPATCHER_DURATION,
    DISPATCHER_DELIVERED,
    DISPATCHER_FAILED,
    DISPATCHER_DEAD,
    TRANSFER_BYTES,
)
