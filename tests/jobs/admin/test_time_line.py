"""The time line has a bar for each step that has begun, with its true length."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.admin.time_line import bars
from jobs.models import Job
from jobs.states import Reason, State

pytestmark = pytest.mark.stateless

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = ("claimed_at", "pulled_at", "prepared_at", "started_at", "finished_at", "exited_at", "completed_at")


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def a_job(status: State, **values: Any) -> Job:
    """Return a job with these values; numbers of `_at` are seconds since it was accepted."""
    times = {name: at(value) if name.endswith("_at") else value for name, value in values.items()}
    return Job(**({"status": status, "created_at": BEGIN, "has_inputs": False, "has_outputs": False} | times))


def steps(job: Job, now: float = 100) -> list[tuple[str, str, float]]:
    return [(bar.step.name, bar.step.moment if bar.step.ended else "", bar.step.seconds) for bar in bars(job, at(now))]


def test_a_job_with_all_steps() -> None:
    job = a_job(
        State.COMPLETED,
        claimed_at=1,
        pulled_at=5,
        prepared_at=8,
        started_at=9,
        finished_at=19,
        exited_at=20,
        completed_at=25,
        has_inputs=True,
        has_outputs=True,
    )
    assert steps(job) == [
        ("Waiting for a node", "claimed", 1),
        ("Pulling the image", "image pulled", 4),
        ("Container and inputs", "inputs in place", 3),
        ("Starting", "started", 1),
        ("Running", "exited", 10),
        ("Reading the rest of the log", "log complete", 1),
        ("Sending outputs", "complete", 5),
    ]


def test_steps_that_a_job_does_not_have_are_left_out() -> None:
    job = a_job(State.COMPLETED, claimed_at=1, prepared_at=2, started_at=3, finished_at=4, exited_at=5, completed_at=5)
    assert [name for name, _, _ in steps(job)] == [
        "Waiting for a node",
        "Creating the container",
        "Starting",
        "Running",
        "Reading the rest of the log",
    ]


@pytest.mark.parametrize(
    ("status", "values", "expected"),
    [
        (State.ACCEPTED, {}, ("Waiting for a node", "", 100)),
        (State.ACCEPTED, {"claimed_at": 10}, ("Creating the container", "", 90)),
        (State.ACCEPTED, {"claimed_at": 10, "doing": "pulling alpine"}, ("Pulling the image", "", 90)),
        (State.ACCEPTED, {"claimed_at": 10, "prepared_at": 20}, ("Starting", "", 80)),
        (State.RUNNING, {"claimed_at": 10, "prepared_at": 20, "started_at": 30}, ("Running", "", 70)),
        (
            State.COMPLETED,
            {"claimed_at": 10, "prepared_at": 20, "started_at": 30, "finished_at": 40},
            ("Reading the rest of the log", "", 60),
        ),
    ],
)
def test_the_last_step_of_an_unfinished_job_goes_on(status: State, values: dict[str, Any], expected: Any) -> None:
    assert steps(a_job(status, **values))[-1] == expected


@pytest.mark.parametrize(
    ("status", "values", "expected"),
    [
        (State.CANCELLED, {"finished_at": 7}, [("Waiting for a node", "cancelled", 7)]),
        (
            State.FAILED,
            {"claimed_at": 2, "finished_at": 7, "reason": Reason.IMAGE_PULL},
            [("Waiting for a node", "claimed", 2), ("Pulling the image", "failed", 5)],
        ),
        (
            State.FAILED,
            {"claimed_at": 2, "prepared_at": 6, "finished_at": 7, "reason": Reason.START_FAILED},
            [("Waiting for a node", "claimed", 2), ("Creating the container", "container created", 4), ("Starting", "failed", 1)],
        ),
    ],
)
def test_a_job_that_never_ran_ends_in_the_step_that_it_had_reached(status: State, values: Any, expected: Any) -> None:
    job = a_job(status, exited_at=8, completed_at=8, **values)
    assert steps(job) == [*expected, ("Cleaning up", "complete", 1)]


def test_a_process_that_was_stopped_did_not_exit() -> None:
    job = a_job(State.FAILED, claimed_at=1, prepared_at=2, started_at=3, finished_at=63, reason=Reason.TIMEOUT)
    assert ("Running", "stopped", 60) in steps(job)


def test_a_job_of_an_earlier_release() -> None:
    job = a_job(State.COMPLETED, started_at=3, finished_at=4, exited_at=5, completed_at=5)
    assert steps(job)[0] == ("Waiting and preparing", "started", 3)


def test_a_clock_that_is_behind_makes_no_step_negative() -> None:
    # Given an engine whose clock is an hour behind
    job = a_job(State.RUNNING, claimed_at=10, prepared_at=20, started_at=-3580)

    # I expect the step that ends by this clock to have taken no time
    assert steps(job)[-2:] == [("Starting", "started", 0), ("Running", "", 80)]


@given(
    st.sampled_from(State),
    st.fixed_dictionaries({}, optional=dict.fromkeys(MOMENTS, st.floats(-1e5, 1e5))),
    st.booleans(),
    st.sampled_from(["", *Reason]),
)
def test_every_bar_is_inside_the_picture(status: State, times: dict[str, float], has_outputs: bool, reason: str) -> None:
    job = a_job(status, has_outputs=has_outputs, reason=reason, **times)
    for bar in bars(job, at(50)):
        assert bar.start >= 0
        assert bar.width > 0
        assert bar.start + bar.width <= 100.02
        assert bar.step.duration
