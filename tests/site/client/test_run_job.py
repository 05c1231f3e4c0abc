"""The exit code is the job's, and a lost answer never makes a second job."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator_site.client.command_line import main
from orchestrator_site.client.log_output import InterruptibleWriter
from orchestrator_site.client.run_job import exit_code_of
from tests.site.client.peers import Peer, Reply, serving

pytestmark = pytest.mark.stateless

LOST = Reply(0)
CONFLICT = Reply(409, {"error": "there is a job with this id", "field": "id"})
ACCEPTED = Reply(202, {"id": "hello", "status": "accepted"})
DONE = {"status": "completed", "exitCode": 0, "finishedAt": "2026-01-31T12:00:00Z", "completedAt": "2026-01-31T12:00:00Z"}
EMPTY_LOG = {"lines": [], "next": 0, "complete": True}


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with serving(peer):
        yield peer


def run(peer: Peer, *arguments: str) -> int:
    return main("bin/run", arguments, {"ORCHESTRATOR_URL": peer.url})


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"status": "completed", "exitCode": 0}, 0),
        ({"status": "completed", "exitCode": 0, "outputs": [{"status": "success"}, {"status": "failed"}]}, 125),
        ({"status": "failed", "reason": "exit_code", "exitCode": 3}, 3),
        ({"status": "failed", "reason": "exit_code", "exitCode": 255}, 255),
        ({"status": "failed", "reason": "oom", "exitCode": 137}, 137),
        ({"status": "failed", "reason": "timeout", "exitCode": 143}, 143),
        ({"status": "failed", "reason": "timeout", "exitCode": 0}, 124),
        ({"status": "failed", "reason": "timeout", "exitCode": -1}, 124),
        ({"status": "failed", "reason": "image_pull", "exitCode": -1}, 125),
        ({"status": "failed", "reason": "exit_code", "exitCode": 256}, 125),
        ({"status": "cancelled"}, 125),
        ({}, 125),
    ],
)
def test_the_exit_code_is_that_of_the_job(job: dict[str, Any], code: int) -> None:
    assert exit_code_of(job) == code


def test_a_job_that_this_command_cancelled_ends_as_the_signal_says() -> None:
    assert exit_code_of({"status": "cancelled", "exitCode": 143}, cancelled_by=2) == 130
    assert exit_code_of({"status": "completed"}, cancelled_by=2) == 0


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_an_output_that_was_cancelled_is_no_success(status: str) -> None:
    job = {"status": "completed", "outputs": [{"status": "success"}, {"status": status}]}

    assert exit_code_of(job, cancelled_by=2) == 130
    assert exit_code_of(job) == 125  # another client has cancelled it


def test_ctrl_c_before_the_outputs_says_which_were_not_sent(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a job whose process has ended well, and Ctrl-C before its output is sent
    ended = {"status": "completed", "exitCode": 0, "finishedAt": "2026-01-31T12:00:00Z"}
    ctrl_c = Reply(200, ended | {"outputs": [{"status": "pending"}]}, effect=lambda: os.kill(os.getpid(), signal.SIGINT))
    skipped = Reply(200, DONE | {"outputs": [{"status": "skipped"}]})
    peer.replies.extend([ACCEPTED, ctrl_c, Reply(204), skipped, Reply(200, EMPTY_LOG)])

    assert run(peer, "--id", "hello", "--output", "a=https://files.example.com/a", "alpine", "true") == 130

    assert capsys.readouterr().err.endswith("run: output a=<URL> was not sent\n")


def test_a_conflict_with_an_id_that_only_this_command_knows_is_its_own_job(peer: Peer) -> None:
    # Given a service that stores the job, and whose answer is lost
    peer.replies.extend([LOST, CONFLICT, Reply(200, DONE), Reply(200, EMPTY_LOG)])

    code = run(peer, "alpine", "true")

    # I expect the same job to be posted again, and to count as accepted
    first, second = (json.loads(body) for method, _, _, body in peer.requests if method == "POST")
    assert first == second
    assert code == 0


def test_a_conflict_with_an_id_that_others_may_know_is_an_error(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.replies.extend([LOST, CONFLICT])

    assert run(peer, "--id", "mine", "alpine", "true") == 125

    assert "there is a job mine, which may be this one or another" in capsys.readouterr().err


def test_a_conflict_at_once_is_an_error_whose_id_it_is(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.replies.append(CONFLICT)

    assert run(peer, "alpine", "true") == 125

    assert "there is already a job with the id" in capsys.readouterr().err


def test_an_error_of_the_service_names_the_option(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.replies.append(Reply(400, {"error": "must\x1b be shorter", "field": "environment.A"}))

    assert run(peer, "--env", "A=the-secret", "alpine", "true") == 125

    assert capsys.readouterr().err == "run: the service refuses the job: --env A: must\\x1b be shorter\n"


@pytest.mark.parametrize(
    ("waiting", "line"),
    [
        ("free capacity on a node", "waiting for free capacity on a node"),
        ("its node's engine to respond", "waiting for its node's engine to respond"),
        ("its namespace, which may use 1 job at once", "waiting for its namespace, which may use 1 job at once"),
        ("17 jobs ahead", "waiting: 17 jobs ahead"),
        ("no node with 64 cpus; the largest has 2", "waiting: no node with 64 cpus; the largest has 2"),
        ("pulling alpine", "pulling alpine"),
        (None, "waiting"),
    ],
)
def test_what_a_job_waits_for_reads_as_a_sentence(
    peer: Peer, waiting: str | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted = Reply(200, {"status": "accepted", "waiting": waiting})
    peer.replies.extend([ACCEPTED, accepted, Reply(200, DONE), Reply(200, EMPTY_LOG)])

    assert run(peer, "--id", "hello", "alpine", "true") == 0

    assert capsys.readouterr().err == f"run: job hello\nrun: {line}\nrun: completed\n"


def test_an_error_in_the_middle_says_that_the_job_may_run_on(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a job, and a key that is revoked while it runs
    peer.replies.extend([ACCEPTED, Reply(401)])

    assert run(peer, "--id", "hello", "alpine", "true") == 125

    assert capsys.readouterr().err.endswith("set ORCHESTRATOR_API_KEY; job hello may still be running\n")


def test_ctrl_c_after_the_end_of_the_job_only_ends_the_log(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a job that has ended, and Ctrl-C while its log is read
    ctrl_c = Reply(200, EMPTY_LOG, effect=lambda: os.kill(os.getpid(), signal.SIGINT))
    peer.replies.extend([ACCEPTED, Reply(200, DONE), ctrl_c])

    assert run(peer, "--id", "hello", "alpine", "true") == 130

    # I expect no request to cancel it, and no word about it
    assert {method for method, *_ in peer.requests} == {"POST", "GET"}
    assert capsys.readouterr().err == "run: job hello\n"


def test_a_job_that_has_ended_is_not_cancelled_because_nobody_reads_its_log(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that has ended, and a reader of its log that has ended, too
    line = {"seq": 1, "stream": "stdout", "text": "a"}
    page = {"lines": [line], "next": 1, "complete": True}
    peer.replies.extend([ACCEPTED, Reply(200, DONE), Reply(200, page), Reply(200, b"a\n")])

    def write(_: InterruptibleWriter, pieces: object) -> None:
        if pieces:
            raise BrokenPipeError

    monkeypatch.setattr(InterruptibleWriter, "write", write)

    # When the log is written, I expect no more than an exit code
    assert run(peer, "--id", "hello", "alpine", "true") == 141
    assert "DELETE" not in [request[0] for request in peer.requests]
    assert "cancelled" not in capsys.readouterr().err


def test_a_fault_of_the_client_has_no_exit_code_that_a_job_may_have(
    monkeypatch: pytest.MonkeyPatch, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("orchestrator_site.client.queries.status")

    assert run(peer, "status", "hello") == 125

    assert "Traceback" in capsys.readouterr().err


def test_a_job_that_was_deleted_does_not_run_on(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.replies.extend([ACCEPTED, Reply(404, {"error": "there is no job with this id"})])

    assert run(peer, "--id", "hello", "alpine", "true") == 125

    assert capsys.readouterr().err.endswith("run: there is no job with this id\n")


def test_a_job_whose_acceptance_is_unknown_is_named(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a service that may have stored the job, and is then away for longer than the client waits
    peer.replies.append(Reply(503, {"error": "the database does not answer"}, {"Retry-After": "100000"}))

    assert run(peer, "--id", "hello", "alpine", "true") == 125

    assert "giving up; it may have accepted the job as hello\n" in capsys.readouterr().err


def test_hostile_texts_of_the_service_reach_the_terminal_escaped(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a service whose every text tries to clear the screen
    job = dict.fromkeys(("id", "status", "error", "reason", "waiting", "node", "image", "startedAt"), "\x1b[2J")
    peer.replies.extend([Reply(200, job | {"meta": {"\x1b[2J": "\x1b[2J"}, "outputs": [job], "inputs": [job]})])

    assert run(peer, "status", "hello") == 0

    assert "\x1b" not in capsys.readouterr().out


def test_what_a_job_used_is_shown_as_far_as_it_is_known(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.replies.append(Reply(200, {"usage": {"cpuSeconds": 1.25, "peakMemoryBytes": 3 * 2**20, "logBytes": None}}))

    assert run(peer, "status", "hello") == 0

    assert "Used      1.25 s of cpu, 3.0 MiB of memory\n" in capsys.readouterr().out


@pytest.mark.parametrize("job", [{"meta": []}, {"outputs": ["text"]}, {"cpu": "1"}, {"inputs": 5}])
def test_a_job_that_is_not_one_is_refused_without_a_traceback(
    peer: Peer, job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    peer.replies.append(Reply(200, job))

    assert run(peer, "status", "hello") == 125

    assert "check ORCHESTRATOR_URL" in capsys.readouterr().err
