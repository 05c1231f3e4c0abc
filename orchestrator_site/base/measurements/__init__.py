"""What the processes count and measure, for `/metrics` (docs/observability.md).

Callers use the functions of `measured`, which have the names of what happens. `metrics.py` lists what there is; each process adds
up its own counts (`process_counts.py`) and keeps them in a file (`count_file.py`), so that they outlive it.
"""

from orchestrator_site.base.measurements.measured import (
    Direction,
    attempt_interrupted,
    event_attempted,
    events_died,
    job_accepted,
    job_decided,
    job_exited,
    job_started,
    request_answered,
    request_refused,
    transferred,
)
from orchestrator_site.base.measurements.process_counts import keep_in

__all__ = [
    "Direction",
    "attempt_interrupted",
    "event_attempted",
    "events_died",
    "job_accepted",
    "job_decided",
    "job_exited",
    "job_started",
    "keep_in",
    "request_answered",
    "request_refused",
    "transferred",
]
