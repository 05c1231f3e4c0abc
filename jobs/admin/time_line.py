"""The steps of a job and how long each took, for the picture on its page.

Times come from two clocks, the database's and the engine's, so a step may seem to end before it began: it then took no time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from jobs.models import Job
from jobs.states import Reason
from orchestrator_site.base.values.durations import format_duration

_LEAST: Final = 0.4  # percent of the width, so that a short step can be seen
_STOPPED: Final = (Reason.TIMEOUT, Reason.CANCELLED)  # decided before the process ended


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a job, from one moment to the next."""

    name: str
    began: datetime
    ended: datetime | None  # None: it is going on
    now: datetime
    kind: str  # of the bar's color: waiting, preparing, running or finishing
    moment: str  # the name of its end

    @property
    def seconds(self) -> float:
        return max(0.0, ((self.ended or self.now) - self.began).total_seconds())

    @property
    def duration(self) -> str:
        return format_duration(self.seconds)


@dataclass(frozen=True, slots=True)
class Bar:
    """A step with its place in the picture, in percent of the width."""

    step: Step
    start: float
    width: float


def bars(job: Job, now: datetime) -> list[Bar]:
    """Return the steps of the job that have begun, in order."""
    steps = list(_steps(job, now))
    begin = job.created_at
    whole = max([0.001, *((step.began - begin).total_seconds() + step.seconds for step in steps)])
    placed = []
    for step in steps:
        start = max(0.0, (step.began - begin).total_seconds()) / whole * 100
        width = max(_LEAST, step.seconds / whole * 100)
        placed.append(Bar(step, round(min(start, 100 - width), 2), round(width, 2)))
    return placed


def _steps(job: Job, now: datetime) -> Iterator[Step]:
    """Yield each step up to the one that is going on. A moment that was not stored joins the steps before and after it."""
    stages = list(_stages(job))
    last_known = max((index for index, stage in enumerate(stages) if stage.ended is not None), default=-1)
    began = job.created_at
    for index, stage in enumerate(stages):
        if stage.ended is not None:
            ended = max(began, stage.ended)
            yield Step(stage.name, began, ended, now, stage.kind, stage.moment)
            began = ended
        elif index > last_known and job.completed_at is None:
            yield Step(stage.name, began, None, now, stage.kind, stage.moment)
            return


class _Stage(NamedTuple):
    name: str
    moment: str
    kind: str
    ended: datetime | None


def _stages(job: Job) -> Iterator[_Stage]:
    if job.started_at is None and job.decided:
        yield from _never_ran(job)
        return
    yield from _before_start(job)
    yield _Stage("Running", "exited" if job.reason not in _STOPPED else "stopped", "running", job.finished_at)
    yield _Stage("Reading the rest of the log", "log complete", "finishing", job.exited_at)
    if job.has_outputs:
        yield _Stage("Sending outputs", "complete", "finishing", job.completed_at)


def _never_ran(job: Job) -> Iterator[_Stage]:
    """Yield the stages of a job that was decided in the middle of one of those before the start."""
    for stage in _before_start(job):
        if stage.ended is None:
            yield stage._replace(moment=job.status, ended=job.finished_at)
            break
        yield stage
    yield _Stage("Cleaning up", "complete", "finishing", job.completed_at)


def _before_start(job: Job) -> Iterator[_Stage]:
    if job.started_at is not None and job.claimed_at is None:  # by a worker of an earlier release
        yield _Stage("Waiting and preparing", "started", "waiting", job.started_at)
        return
    yield _Stage("Waiting for a node", "claimed", "waiting", job.claimed_at)
    if job.pulled_at is not None or job.doing.startswith("pulling ") or job.reason == Reason.IMAGE_PULL:
        yield _Stage("Pulling the image", "image pulled", "preparing", job.pulled_at)
    files = "Container and inputs" if job.has_inputs else "Creating the container"
    yield _Stage(files, "inputs in place" if job.has_inputs else "container created", "preparing", job.prepared_at)
    yield _Stage("Starting", "started", "preparing", job.started_at)
