"""The page of a job says in a sentence why it ended as it did, and what to do."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from jobs import lifecycle
from jobs.admin.explanation import explain
from jobs.errors import ErrorCode
from jobs.models import Job
from jobs.spec import InputSpec, OutputSpec
from jobs.states import InputType, OutputType, Reason, State, TransferStatus
from tests.helpers.factories import claimed, make_job, make_node

pytestmark = pytest.mark.django_db


def failed(reason: Reason, error: str = "", *, exit_code: int = -1, ran: bool = True) -> Job:
    """Return a job that failed, after 2.5 s if it ran."""
    ended = timezone.now()
    return Job(
        status=State.FAILED,
        reason=reason,
        error=error,
        exit_code=exit_code,
        image="alpine:latest",
        memory_mib=64,
        timeout_seconds=60,
        started_at=ended - timedelta(seconds=2.5) if ran else None,
        finished_at=ended,
    )


@pytest.mark.parametrize(
    ("job", "sentence", "advice", "anchor"),
    [
        (failed(Reason.EXIT_CODE, exit_code=3), "Its process ended with exit code 3 after 2.5 s.", "end of its log", "log"),
        (failed(Reason.EXIT_CODE, exit_code=127), "Its process ended with exit code 127 after 2.5 s.", "was not found", "log"),
        (
            failed(Reason.EXIT_CODE, exit_code=126),
            "Its process ended with exit code 126 after 2.5 s.",
            "cannot be executed",
            "log",
        ),
        (
            failed(Reason.EXIT_CODE, exit_code=139),
            "Its process ended with exit code 139 (SIGSEGV) after 2.5 s.",
            "crashed",
            "log",
        ),
        (
            failed(Reason.EXIT_CODE, exit_code=137),
            "Its process ended with exit code 137 (SIGKILL) after 2.5 s.",
            "killed it",
            "log",
        ),
        (
            failed(Reason.EXIT_CODE, "exit code 126: image is for arm64, node is amd64", exit_code=126),
            "Its process ended with exit code 126 after 2.5 s: image is for arm64, node is amd64.",
            "cannot be executed",
            "log",
        ),
        (
            failed(Reason.EXIT_CODE, "exit code 255", exit_code=255),
            "Its process ended with exit code 255 after 2.5 s.",
            "end of its log",
            "log",
        ),
        (
            failed(Reason.OOM, exit_code=137),
            "The kernel killed its process after 2.5 s, because it needed more than 64 MiB of memory.",
            "higher memory",
            "usage",
        ),
        (
            failed(Reason.DISK, "the job had written 11 GiB to the disk; the limit is 10 GiB", exit_code=137),
            "Its process was killed after 2.5 s, because it used too much of its node's disk: "
            "the job had written 11 GiB to the disk; the limit is 10 GiB.",
            "write less",
            "log",
        ),
        (failed(Reason.TIMEOUT), "Its process was still running after 60 s and was stopped.", "higher timeoutSeconds", "log"),
        (
            failed(Reason.IMAGE_PULL, "the image alpine:latest was not found", ran=False),
            "Its image cannot be used: the image alpine:latest was not found.",
            "name and tag",
            "",
        ),
        (
            failed(Reason.START_FAILED, "the command was not found.", ran=False),
            "Its container could not be started: the command was not found.",
            "its node",
            "",
        ),
        (
            failed(Reason.ENGINE_LOST, "the container is gone"),
            "It was lost: the container is gone.",
            "run it again",
            "",
        ),
    ],
)
def test_a_failed_job_says_why_and_what_to_do(job: Job, sentence: str, advice: str, anchor: str) -> None:
    found = explain(job)
    assert (found.tone, found.sentence, found.anchor) == ("danger", sentence, anchor)
    assert advice in found.advice


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in (Reason.CANCELLED, Reason.INPUT_FAILED)])
def test_every_reason_has_advice(reason: Reason) -> None:
    assert explain(failed(reason, "an error")).advice


def test_a_failed_input_is_named() -> None:
    # Given a job with an input that cannot be downloaded
    job = make_job(inputs=(InputSpec(id="data", type=InputType.DOWNLOAD, path="a", url="http://h/"),))
    claim = claimed(job)
    lifecycle.input_failed(claim, job.inputs.get(), ErrorCode.DOWNLOAD_HTTP_ERROR, "http://h/ answered 404", 0.1)
    job.refresh_from_db()

    # I expect its name and the error
    found = explain(job)
    assert found.sentence.startswith("Its input data could not be put in place")
    assert "answered 404" in found.sentence
    assert found.anchor == "inputs"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cpu_millis": 64_000}, "It is waiting: no node with 64 cpus; the largest has 2."),
        ({}, "It waits for free capacity on a node."),
    ],
)
def test_an_accepted_job_says_what_it_waits_for(values: dict[str, Any], sentence: str) -> None:
    make_node(cpus=2)
    found = explain(make_job(**values))
    assert (found.tone, found.sentence) == ("info", sentence)
    assert "64 MiB of memory" in found.advice


@pytest.mark.parametrize(
    ("doing", "sentence"),
    [
        ("pulling alpine:latest", "It is being prepared: pulling alpine:latest."),
        ("0/1 nodes are available: 1 Insufficient cpu.", "It is being prepared: 0/1 nodes are available: 1 Insufficient cpu."),
        ("the cluster to make its pod", "It waits for the cluster to make its pod."),
    ],
)
def test_a_claimed_job_says_what_is_done(doing: str, sentence: str) -> None:
    job = make_job()
    lifecycle.report_progress(claimed(job), doing)
    job.refresh_from_db()
    assert explain(job).sentence == sentence
    assert explain(job).advice == ""


def test_other_states() -> None:
    running = Job(status=State.RUNNING, timeout_seconds=60)
    assert explain(running).sentence == "Its process is running."
    assert "60 s" in explain(running).advice
    assert explain(Job(status=State.CANCELLED)).sentence == "It was cancelled before its process was started."
    assert explain(Job(status=State.CANCELLED, started_at=timezone.now())).sentence == "It was cancelled while it ran."


def test_a_completed_job_with_failed_outputs_is_no_success() -> None:
    # Given a completed job with two outputs
    specs = tuple(OutputSpec(id=name, type=OutputType.EVENT, path=name) for name in ("one", "two"))
    job = make_job(outputs=specs)
    job.status = State.COMPLETED
    assert explain(job).tone == "success"

    # When they fail, one after the other, I expect that to be said
    job.outputs.filter(name="one").update(status=TransferStatus.FAILED, error="no such file")
    assert "the output one could not be sent: no such file." in explain(job).sentence
    job.outputs.update(status=TransferStatus.FAILED)
    assert "2 outputs could not be sent" in explain(job).sentence
    assert (explain(job).tone, explain(job).anchor) == ("warning", "outputs")
