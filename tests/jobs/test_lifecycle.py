"""Changes of a job's state are guarded and committed with their event."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callbacks.models import Event
from jobs import lifecycle, services
from jobs.engine.protocol import Usage
from jobs.errors import ErrorCode, OwnershipLost
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State
from tests.helpers.factories import STARTED_AT, claimed, make_job, make_node

pytestmark = pytest.mark.django_db(transaction=True)

ENDED_AT = datetime(2026, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)


def event_types() -> list[str]:
    rows = Event.objects.order_by("sequence").values_list("type", flat=True)
    return [type_.removeprefix("orchestrator.job.") for type_ in rows]


def an_input(name: str) -> InputSpec:
    return InputSpec(id=name, type=InputType.FILE, path=name, content=b"x")


def an_output(name: str) -> OutputSpec:
    return OutputSpec(id=name, type=OutputType.EVENT, path=name)


def test_a_job_from_start_to_end() -> None:
    # Given a claimed job with an input and two outputs
    job = make_job(inputs=(an_input("in"),), outputs=(an_output("one"), an_output("two")))
    claim = claimed(job)

    # When everything succeeds except the second output
    lifecycle.input_done(claim, job.inputs.get(), 1, "starting", 0.5)
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT)
    lifecycle.exited(claim, 0)
    one, two = job.outputs.all()
    lifecycle.output_done(claim, one, 2, 0.5, '{"a":1}')
    lifecycle.output_failed(claim, two, ErrorCode.ARTIFACT_NOT_FOUND, "no such file", 0.5)
    lifecycle.completed(claim)

    # I expect each step's event, in order, and a row without an owner
    assert event_types() == ["input", "start", "exit", "output", "output", "complete"]
    job.refresh_from_db()
    assert (job.status, job.exit_code, job.reason, job.owner) == (State.COMPLETED, 0, "", None)
    assert (job.started_at, job.finished_at) == (STARTED_AT, ENDED_AT)
    assert [item.status for item in job.outputs.all()] == ["success", "failed"]
    assert job.completed_at is not None


def test_usage_is_stored_as_soon_as_it_is_known() -> None:
    # Given a job that was decided before its process ended
    claim = claimed(make_job())
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.FAILED, Reason.TIMEOUT, "timed out")

    # When its process has ended
    lifecycle.exited(claim, 143, Usage(1.5, 1024**2))

    # I expect it in the row and in the event
    job = Job.objects.get()
    assert (job.cpu_seconds, job.peak_memory_bytes) == (1.5, 1024**2)
    data = json.loads(bytes(Event.objects.get(type="orchestrator.job.exit").body))["data"]
    assert data["usage"] == {"cpuSeconds": 1.5, "peakMemoryBytes": 1024**2, "inputBytes": 0, "logBytes": 0}


def test_a_later_look_that_finds_no_usage_does_not_remove_it() -> None:
    claim = claimed(make_job())
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT, usage=Usage(1.5, 1024**2))

    lifecycle.exited(claim, 0, None)

    assert Job.objects.get().cpu_seconds == 1.5


def test_the_bytes_of_each_file_are_counted_once() -> None:
    # Given a job with two inputs and two outputs
    job = make_job(inputs=(an_input("a"), an_input("b")), outputs=(an_output("c"), an_output("d")))
    claim = claimed(job)

    # When its inputs are put in again after a crash
    for _ in range(2):
        for size, item in enumerate(job.inputs.all(), 1):
            lifecycle.input_done(claim, item, size, "", 0.5)
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT)
    lifecycle.exited(claim, 0)
    # and its outputs are sent
    for size, item in enumerate(job.outputs.all(), 10):
        lifecycle.output_done(claim, item, size, 0.5, "1")

    # I expect
    job.refresh_from_db()
    assert (job.input_bytes, job.output_bytes) == (3, 21)


def test_an_exit_is_reported_once() -> None:
    # Given a job whose exit was reported, while its outputs are not done
    claim = claimed(make_job(outputs=(an_output("one"),)))
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT)
    lifecycle.exited(claim, 0)

    # I expect another report to be refused
    with pytest.raises(OwnershipLost):
        lifecycle.exited(claim, 0)
    assert event_types() == ["start", "exit"]


def test_an_input_repeated_after_a_crash_has_no_second_event() -> None:
    job = make_job(inputs=(an_input("in"),))
    claim = claimed(job)

    lifecycle.input_done(claim, job.inputs.get(), 1, "starting", 0.5)
    lifecycle.input_done(claim, job.inputs.get(), 1, "starting", 0.5)

    assert event_types() == ["input"]


def test_a_failed_input_fails_the_job_and_skips_the_rest() -> None:
    # Given
    job = make_job(inputs=tuple(an_input(name) for name in "abc"), outputs=(an_output("out"),))
    claim = claimed(job)
    first, second, _ = job.inputs.all()
    lifecycle.input_done(claim, first, 1, "starting", 0.5)

    # When
    lifecycle.input_failed(claim, second, ErrorCode.DOWNLOAD_HTTP_ERROR, "404", 0.5)
    lifecycle.conclude(claim)

    # I expect no start, no output event, and exit code -1
    assert event_types() == ["input", "input", "exit", "complete"]
    job.refresh_from_db()
    assert (job.status, job.reason) == (State.FAILED, Reason.INPUT_FAILED)
    assert [item.status for item in job.inputs.all()] == ["success", "failed", "skipped"]
    assert [item.status for item in job.outputs.all()] == ["skipped"]


def test_an_unclaimed_job_is_cancelled_and_completed() -> None:
    # Given an accepted job
    job = make_job(outputs=(an_output("out"),))

    # When it is cancelled, twice
    services.cancel(job.id)
    services.cancel(job.id)

    # I expect one exit and one complete event and nothing left to do
    assert event_types() == ["exit", "complete"]
    job.refresh_from_db()
    assert (job.status, job.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert job.completed_at is not None
    assert job.outputs.get().status == "skipped"


def test_a_cancelled_job_is_completed_by_its_owner() -> None:
    # Given a job that runs
    job = make_job()
    claim = claimed(job)
    lifecycle.started(claim, STARTED_AT)

    # When it is cancelled, I expect it to be decided at once, and its exit to wait for the owner
    services.cancel(job.id)
    job.refresh_from_db()
    assert job.status == State.CANCELLED
    assert job.reserved
    assert event_types() == ["start"]

    # And the owner's own decision to be refused
    with pytest.raises(OwnershipLost):
        lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT)

    # When the owner has stopped the process
    lifecycle.exited(claim, 143)
    lifecycle.completed(claim)
    assert event_types() == ["start", "exit", "complete"]


def test_an_unstarted_job_on_a_lost_node_is_requeued() -> None:
    # Given
    node = make_node()
    job = make_job()
    claimed(job, node)
    Job.objects.update(owner=None)

    # When
    lifecycle.node_lost(job.uuid, node)

    # I expect any node to be able to claim it, and no event
    job.refresh_from_db()
    assert (job.status, job.node, job.reserved) == (State.ACCEPTED, None, False)
    assert event_types() == []


def test_a_started_job_on_a_lost_node_is_engine_lost() -> None:
    # Given
    job = make_job(outputs=(an_output("out"),))
    lifecycle.started(claimed(job), STARTED_AT)
    Job.objects.update(owner=None)

    # When
    lifecycle.node_lost(job.uuid, Node.objects.get())

    # I expect it to end, with its outputs failed
    job.refresh_from_db()
    assert (job.status, job.reason, job.exit_code) == (State.FAILED, Reason.ENGINE_LOST, -1)
    assert event_types() == ["start", "exit", "output", "complete"]


@pytest.mark.parametrize("how", ["its node is lost", "its container is gone"])
def test_cancelled_outputs_are_skipped(how: str) -> None:
    # Given a job that has ended, and whose outputs were cancelled
    job = make_job(outputs=(an_output("out"),))
    claim = claimed(job)
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT)
    lifecycle.exited(claim, 0)
    services.cancel(job.id)

    # When its files cannot be reached any more
    if how == "its container is gone":
        lifecycle.conclude(claim)
    else:
        Job.objects.update(owner=None)
        lifecycle.node_lost(job.uuid, Node.objects.get())

    # I expect the output to be skipped, without an event
    assert job.outputs.get().status == "skipped"
    assert event_types() == ["start", "exit", "complete"]


def test_a_node_that_returns_keeps_its_job() -> None:
    job = make_job()
    claimed(job)

    with pytest.raises(OwnershipLost):
        lifecycle.node_lost(job.uuid, Node.objects.get())


def test_stored_errors_have_at_most_1_kib_and_no_nul() -> None:
    text = lifecycle.storable_error("é" * 5000 + "\x00")
    assert len(text.encode()) <= 1024
    assert "\x00" not in lifecycle.storable_error("a\x00b")


def steps(claim: Claim, job: Job) -> dict[str, Any]:
    """Every change that its owner or others may try."""
    return {
        "started": lambda: lifecycle.started(claim, STARTED_AT),
        "completes": lambda: lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=ENDED_AT),
        "fails": lambda: lifecycle.decide(claim, State.FAILED, Reason.EXIT_CODE, "1", exit_code=1, ended=ENDED_AT),
        "times out": lambda: lifecycle.decide(claim, State.FAILED, Reason.TIMEOUT, "long"),
        "cancelled": lambda: services.cancel(job.id),
        "exited": lambda: lifecycle.exited(claim, 0),
        "output": lambda: lifecycle.output_done(claim, job.outputs.get(), 1, 0.5, '"x"'),
        "completed": lambda: lifecycle.completed(claim),
        "concluded": lambda: lifecycle.conclude(claim),
        "input": lambda: lifecycle.input_done(claim, job.inputs.get(), 1, "starting", 0.5),
        "input fails": lambda: lifecycle.input_failed(claim, job.inputs.get(), ErrorCode.DOWNLOAD_FAILED, "no", 0.5),
        "node lost": lambda: lifecycle.node_lost(job.uuid, Node.objects.get()),
    }


ORDER = ["input", "start", "exit", "output", "complete"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(steps(Claim(UUID(int=0), UUID(int=0), 1), Job()))), max_size=12))
def test_any_sequence_of_steps_keeps_the_invariants(names: list[str]) -> None:
    # Given a claimed job
    with transaction.atomic():
        job = make_job(inputs=(an_input("in"),), outputs=(an_output("out"),))
        claim = claimed(job)
        job.refresh_from_db()
        seen = [State(job.status)]

        # When any changes are tried, in any order
        for name in names:
            try:
                with transaction.atomic():
                    steps(claim, job)[name]()
            except OwnershipLost:
                pass
            job.refresh_from_db()
            seen.append(State(job.status))

        # I expect a status that never moves backwards, and events in order, each at most once
        types = event_types()
        assert types == [type_ for type_ in ORDER if type_ in types]
        decided = [state for state in seen if state not in (State.ACCEPTED, State.RUNNING)]
        assert len(set(decided)) <= 1
        ranks = [0 if state == State.ACCEPTED else 1 if state == State.RUNNING else 2 for state in seen]
        assert ranks == sorted(ranks)
        # And a complete job to have sent both of its last events
        if job.completed_at is not None:
            assert {"exit", "complete"} <= set(types)
        # And the node to have reserved exactly what the job needs, as long as it needs it
        reserved = Node.objects.values_list("cpu_millis_reserved", "memory_mib_reserved").get()
        assert reserved == ((job.cpu_millis, job.memory_mib) if job.reserved else (0, 0))
        assert not (job.reserved and job.exited_at)
        transaction.set_rollback(True)
