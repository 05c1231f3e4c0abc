"""What the events of a job say."""

import json
from datetime import timedelta
from typing import Any

import pytest

from callbacks.models import Event
from jobs import events, lifecycle, services
from jobs.errors import ErrorCode
from jobs.models import Job
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State
from tests.helpers.factories import STARTED_AT, claimed, make_job

pytestmark = pytest.mark.django_db(transaction=True)

A_FILE = InputSpec(id="in", type=InputType.FILE, path="dir/in", content=b"x")
A_RESULT = OutputSpec(id="out", type=OutputType.EVENT, path="out")
FAILED, CANCELLED = State.FAILED, State.CANCELLED


def data_of(job: Job, type_: str) -> dict[str, Any]:
    event = Event.objects.get(subscription__stream=job.uuid, type=type_)
    data: dict[str, Any] = json.loads(bytes(event.body))["data"]
    return data


def exit_data(
    status: State, reason: Reason | None, error: str = "", *, exit_code: int | None, started: bool = True
) -> dict[str, Any]:
    """Decide a job so, and return the data of its exit event."""
    job = make_job(image="busybox")
    claim = claimed(job)
    if started:
        lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, status, reason, error, exit_code=exit_code, ended=STARTED_AT + timedelta(seconds=2.5))
    lifecycle.exited(claim, exit_code)
    return data_of(job, events.EXIT)


def test_the_exit_of_a_completed_job_has_neither_reason_nor_error() -> None:
    data = exit_data(State.COMPLETED, None, exit_code=0)
    assert data == {
        "jobId": data["jobId"],
        "meta": {},
        "exitCode": 0,
        "status": "completed",
        "image": "busybox",
        "durationSeconds": 2.5,
        "usage": {"inputBytes": 0, "logBytes": 0},
    }


@pytest.mark.parametrize(
    ("status", "reason", "exit_code", "started", "code"),
    [
        (FAILED, Reason.EXIT_CODE, 3, True, "job_exit_nonzero"),
        (FAILED, Reason.EXIT_CODE, 137, True, "job_exit_nonzero"),
        (FAILED, Reason.OOM, 137, True, "job_oom"),
        (FAILED, Reason.TIMEOUT, 143, True, "job_exit_nonzero"),
        (FAILED, Reason.DISK, 137, True, "job_exit_nonzero"),
        (FAILED, Reason.TIMEOUT, 0, True, "job_exit_nonzero"),
        (FAILED, Reason.TIMEOUT, -1, True, "job_failed"),
        (FAILED, Reason.ENGINE_LOST, -1, True, "job_failed"),
        (FAILED, Reason.IMAGE_PULL, -1, False, "job_failed"),
        (FAILED, Reason.START_FAILED, -1, False, "job_failed"),
        (CANCELLED, Reason.CANCELLED, 143, True, "job_exit_nonzero"),
        (CANCELLED, Reason.CANCELLED, -1, True, "job_failed"),
        (CANCELLED, Reason.CANCELLED, None, False, "job_failed"),
    ],
)
def test_exit_errors_have_a_code(status: State, reason: Reason, exit_code: int | None, started: bool, code: str) -> None:
    data = exit_data(status, reason, "it said no", exit_code=exit_code, started=started)
    assert (data["status"], data["reason"], data["exitCode"]) == (status, reason, -1 if exit_code is None else exit_code)
    assert data["error"] == {"code": code, "message": "it said no"}


def test_the_exit_of_a_cancelled_job_says_so() -> None:
    job = make_job()
    services.cancel(job.id)
    assert data_of(job, events.EXIT)["error"] == {"code": "job_failed", "message": "the job was cancelled"}
    assert data_of(job, events.EXIT)["durationSeconds"] == 0.0


def test_error_messages_have_at_most_1_kib() -> None:
    assert len(exit_data(FAILED, Reason.EXIT_CODE, "é" * 2000, exit_code=1)["error"]["message"].encode()) <= 1024


def test_inputs_have_a_duration_and_an_error_with_a_code() -> None:
    # Given a job with an input that works and one with an input that fails
    good, bad = make_job(inputs=(A_FILE,)), make_job(inputs=(A_FILE,))
    lifecycle.input_done(claimed(good), good.inputs.get(), 1, "starting", 1.23456)
    lifecycle.input_failed(claimed(bad), bad.inputs.get(), ErrorCode.ARTIFACT_WRITE_FAILED, "read-only", 2.0)

    # I expect their events to say so
    common = {"meta": {}, "inputId": "in", "path": "dir/in"}
    assert data_of(good, events.INPUT) == {**common, "jobId": good.id, "status": "success", "durationSeconds": 1.235}
    assert data_of(bad, events.INPUT) == {
        **common,
        "jobId": bad.id,
        "status": "failed",
        "durationSeconds": 2.0,
        "error": {"code": "artifact_write_failed", "message": "read-only"},
    }


def test_outputs_have_a_duration_and_an_error_with_a_code() -> None:
    # Given an ended job with two outputs
    job = make_job(outputs=(A_RESULT, OutputSpec(id="up", type=OutputType.UPLOAD, path="up", url="http://h/")))
    claim = claimed(job)
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)
    lifecycle.exited(claim, 0)
    result, upload = job.outputs.all()

    # When one works and one fails
    lifecycle.output_done(claim, result, 1, 0.5, "1.0")
    lifecycle.output_failed(claim, upload, ErrorCode.UPLOAD_FAILED, "was answered 403", 0.25)

    # I expect their events to say so
    bodies = [json.loads(bytes(event.body))["data"] for event in Event.objects.filter(type=events.OUTPUT).order_by("sequence")]
    common = {"jobId": job.id, "meta": {}}
    assert bodies == [
        {**common, "outputId": "out", "outputType": "event", "status": "success", "durationSeconds": 0.5, "content": 1.0},
        {
            **common,
            "outputId": "up",
            "outputType": "upload",
            "status": "failed",
            "durationSeconds": 0.25,
            "error": {"code": "upload_failed", "message": "was answered 403"},
        },
    ]


def test_outputs_of_a_lost_container_cannot_be_read() -> None:
    # Given a job that runs and whose container is lost
    job = make_job(outputs=(A_RESULT,))
    claim = claimed(job)
    lifecycle.started(claim, STARTED_AT)
    lifecycle.decide(claim, FAILED, Reason.ENGINE_LOST, "the container is gone", exit_code=-1)

    # When it is concluded, I expect its output to have failed
    lifecycle.conclude(claim)
    assert data_of(job, events.OUTPUT)["error"]["code"] == "artifact_read_failed"
