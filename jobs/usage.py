"""What a job has used, as the API and its `exit` event show it."""

from jobs.models import Job
from jobs.states import State


def usage_of(job: Job) -> dict[str, float | int] | None:
    """Return what is known of a job's usage; None while it has not started, and if it never did."""
    if job.started_at is None or job.status == State.ACCEPTED:
        return None
    used = {
        "cpuSeconds": job.cpu_seconds,
        "peakMemoryBytes": job.peak_memory_bytes,
        "inputBytes": job.input_bytes,
        "outputBytes": None if job.completed_at is None else job.output_bytes,
        "logBytes": job.log_bytes,
    }
    return {name: value for name, value in used.items() if value is not None}
