"""How a job ends by what its engine says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.engine.protocol import Observation
from jobs.running.process_outcome import Outcome, outcome_of
from jobs.states import Reason, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ended(exit_code: int | None = None, **values: Any) -> Observation:
    return Observation("name", "ended", NOW, finished_at=NOW, exit_code=exit_code, **values)


def test_a_running_process_has_no_outcome() -> None:
    assert outcome_of(Observation("name", "running", NOW), 512) is None


GONE = [None, Observation("name", "created", NOW), Observation("name", "starting", NOW)]


@pytest.mark.parametrize("container", GONE, ids=["none", "created", "starting"])
def test_a_missing_container_is_engine_lost(container: Observation | None) -> None:
    assert outcome_of(container, 512) == Outcome(State.FAILED, Reason.ENGINE_LOST, -1, "the container is gone")


@pytest.mark.parametrize(
    ("container", "status", "reason", "code", "error"),
    [
        (ended(0), State.COMPLETED, None, 0, ""),
        (ended(3), State.FAILED, Reason.EXIT_CODE, 3, "exit code 3"),
        (ended(137), State.FAILED, Reason.EXIT_CODE, 137, "exit code 137"),
        (ended(137, oom_killed=True), State.FAILED, Reason.OOM, 137, "out of memory: the job exceeded its limit of 512 MiB"),
        (ended(0, oom_killed=True), State.COMPLETED, None, 0, ""),
        (ended(3, oom_killed=True), State.FAILED, Reason.EXIT_CODE, 3, "exit code 3"),
        (ended(126, wrong_platform="x"), State.FAILED, Reason.EXIT_CODE, 126, "exit code 126: x"),
        (ended(None), State.FAILED, Reason.EXIT_CODE, -1, "exit code -1"),
        (ended(137, over_disk_limit=True, end_cause="wrote 11 GiB"), State.FAILED, Reason.DISK, 137, "wrote 11 GiB"),
        (ended(0, over_disk_limit=True), State.FAILED, Reason.DISK, 0, "the job had written more to the disk than it may"),
        (ended(137, lost=True, end_cause="the node went away"), State.FAILED, Reason.ENGINE_LOST, -1, "the node went away"),
        (ended(0, lost=True, over_disk_limit=True, end_cause="x"), State.FAILED, Reason.ENGINE_LOST, -1, "x"),
    ],
)
def test_the_exit_code_decides(container: Observation, status: State, reason: Reason | None, code: int, error: str) -> None:
    assert outcome_of(container, 512) == Outcome(status, reason, code, error, NOW)


def test_a_process_that_a_restart_ended_is_engine_lost() -> None:
    outcome = outcome_of(ended(0, lost=True), 512)

    assert outcome is not None
    assert (outcome.status, outcome.reason, outcome.exit_code) == (State.FAILED, Reason.ENGINE_LOST, -1)
