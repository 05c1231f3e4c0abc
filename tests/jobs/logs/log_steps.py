"""Steps that the tests of this package share: read a job's log, and look at what became of it."""

import json
from collections.abc import Sequence
from typing import Any

from callbacks.models import Event
from jobs import lifecycle
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.logs.log_follower import LogFollower
from jobs.logs.log_writer import LogWriter
from jobs.models import Job, LogChunk
from jobs.states import State
from orchestrator_site.base.intervals import LogIntervals
from tests.helpers.factories import STARTED_AT, claimed, make_job

INTERVALS = LogIntervals(rest_stall=0.0)  # a callback does not keep up with the rest of a log if its backlog is full once


def started(**values: Any) -> Claim:
    """Return the claim of a job whose process runs."""
    claim = claimed(make_job(**values))
    lifecycle.started(claim, STARTED_AT)
    return claim


def decide(claim: Claim) -> None:
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)


def log_writer(claim: Claim, *, log_limit: int = 10**9, engine_log_limit: int | None = 10**9) -> LogWriter:
    return LogWriter(claim, Job.objects.get(), log_limit=log_limit, engine_log_limit=engine_log_limit)


def log_follower(
    engine: Any,
    claim: Claim,
    interrupt: Interrupt | None = None,
    *,
    name: str = "name",
    intervals: LogIntervals = INTERVALS,
    **limits: Any,
) -> LogFollower:
    """Return a new owner's follower: it continues at what is committed."""
    return LogFollower(engine, name, log_writer(claim, **limits), interrupt or Interrupt(), intervals)


def stored_lines() -> list[str]:
    return [text for chunk in LogChunk.objects.all() for _, _, text in chunk.lines]


def log_events() -> list[dict[str, Any]]:
    """Return the data of all `log` events, in order."""
    events = Event.objects.filter(type="orchestrator.job.log").order_by("sequence")
    return [json.loads(bytes(event.body))["data"] for event in events]


def dropped_lines_in_exit() -> int:
    event = Event.objects.get(type="orchestrator.job.exit")
    return int(json.loads(bytes(event.body))["data"].get("droppedLines", 0))


def reported_lines() -> tuple[list[str], int]:
    """Return the lines of all events, with an empty one for each dropped line, and the number of dropped ones."""
    lines, all_dropped = [], 0
    for event in Event.objects.order_by("sequence"):
        data = json.loads(bytes(event.body))["data"]
        dropped = data.get("droppedLines", 0)
        lines += [""] * dropped + data.get("lines", [])
        all_dropped += dropped
    return lines, all_dropped


def assert_reported(printed: Sequence[str]) -> int:
    """Assert that each line was published, or counted as dropped, in its place; return the number of dropped ones."""
    lines, dropped = reported_lines()
    assert len(lines) == len(printed)
    assert all(one in ("", other) for one, other in zip(lines, printed, strict=True))
    return dropped
