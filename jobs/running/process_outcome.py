"""How a job ends, by what its engine says about the container. No I/O."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jobs.engine.protocol import Observation, Usage
from jobs.states import NO_EXIT_CODE, Reason, State

_OOM_EXIT_CODE: Final = 137


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job that had started."""

    status: State
    reason: Reason | None
    exit_code: int
    error: str = ""
    ended_at: datetime | None = None  # by the engine's clock; None: no process of which the engine knows
    usage: Usage | None = None


LOST: Final = Outcome(State.FAILED, Reason.ENGINE_LOST, NO_EXIT_CODE, "the container is gone")


def outcome_of(container: Observation | None, memory_mib: int) -> Outcome | None:
    """Return how a job that had started ends; None while its process runs."""
    if container is None or not container.has_run:
        return LOST
    if container.phase == "running":
        return None
    usage, ended_at = container.usage, container.finished_at
    if container.lost:
        error = container.end_cause or "the engine or its host was restarted while the job ran: its exit code is unknown"
        return Outcome(State.FAILED, Reason.ENGINE_LOST, NO_EXIT_CODE, error, ended_at, usage)
    code = NO_EXIT_CODE if container.exit_code is None else container.exit_code
    if container.over_disk_limit:
        error = container.end_cause or "the job had written more to the disk than it may"
        return Outcome(State.FAILED, Reason.DISK, code, error, ended_at, usage)
    if code == 0:
        return Outcome(State.COMPLETED, None, code, ended_at=ended_at, usage=usage)
    if container.oom_killed and code == _OOM_EXIT_CODE:
        error = f"out of memory: the job exceeded its limit of {memory_mib} MiB"
        return Outcome(State.FAILED, Reason.OOM, code, error, ended_at, usage)
    error = f"exit code {code}: {container.wrong_platform}" if container.wrong_platform else f"exit code {code}"
    return Outcome(State.FAILED, Reason.EXIT_CODE, code, error, ended_at, usage)
