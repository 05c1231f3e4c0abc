"""Whole jobs in real containers: how they end, and which events their callbacks receive."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.helpers import built_images
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

KEY = "a key of the test"
LINKED = "orchestrator-test/linked-workspace:latest"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def post(service: Service, receiver: Receiver, **members: Any) -> str:
    return service.post_job(callback={"url": receiver.url, "key": KEY}, **members)


def event_types(receiver: Receiver, job_id: str) -> list[str]:
    """Wait for the last event of a job, and return the types of its events in order of arrival."""

    def types() -> list[str]:
        events = [event for event in receiver.events if event["subject"] == job_id]
        return [event["type"].removeprefix("orchestrator.job.") for event in events]

    return wait_for(lambda: types() if "complete" in types() else None, 60, f"the complete event of {job_id}")


def data_of(receiver: Receiver, job_id: str, type_: str) -> dict[str, Any]:
    """Wait for the only event of this type of a job, and return its data."""

    def arrived() -> list[dict[str, Any]]:
        return [
            event["data"]
            for event in receiver.events
            if event["subject"] == job_id and event["type"] == f"orchestrator.job.{type_}"
        ]

    wait_for(arrived, 60, f"the {type_} event of {job_id}")
    (data,) = arrived()
    return data


def log_of(service: Service, job_id: str) -> str:
    return service.request("GET", f"/v1/jobs/{job_id}/logs").text


def test_a_job_prints_and_completes(running: Service, receiver: Receiver) -> None:
    # When
    job_id = post(running, receiver, command="echo out; echo err >&2; printf unfinished", meta={"team": "a"})
    job = running.wait_complete(job_id)

    # I expect
    assert (job["status"], job["exitCode"]) == ("completed", 0)
    assert event_types(receiver, job_id)[0] == "start"
    assert event_types(receiver, job_id)[-2:] == ["exit", "complete"]
    assert sorted(log_of(running, job_id).splitlines()) == ["err", "out", "unfinished"]
    exit_ = data_of(receiver, job_id, "exit")
    assert (exit_["jobId"], exit_["meta"], exit_["exitCode"]) == (job_id, {"team": "a"}, 0)
    sequences = [event["jobsequence"] for event in receiver.events if event["subject"] == job_id]
    assert sequences == list(range(1, len(sequences) + 1))


def lines_of(service: Service, job_id: str) -> list[dict[str, Any]]:
    answer = service.request("GET", f"/v1/jobs/{job_id}/logs", headers={"Accept": "application/json"})
    lines: list[dict[str, Any]] = answer.json()["lines"]
    return lines


def sent_text(receiver: Receiver, job_id: str) -> str:
    """Return the text of a job's log events, with pieces of a line joined, and a line feed after each line."""
    text = ""
    for event in receiver.events:
        if event["subject"] == job_id and event["type"] == "orchestrator.job.log":
            partial = event["data"].get("partialLines", [])
            text += "".join(line + "\n" * (index not in partial) for index, line in enumerate(event["data"]["lines"]))
    return text


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("yes 漢字テスト | head -n 3000 | tr -d '\\n'", "漢字テスト" * 3000),
        ("yes 漢字テスト | head -n 30000 | tr -d '\\n'; echo; printf 'a\\r\\nb\\rc'", "漢字テスト" * 30_000 + "\na\r\nb\rc"),
        (
            """printf '["';yes '\\"' | head -n 100000 | tr -d '\\n'; echo '"]'; echo next""",
            '["' + '\\"' * 100_000 + '"]\nnext\n',
        ),
    ],
    ids=["without a line feed", "in pieces", "a line of JSON"],
)
def test_a_log_is_what_was_printed(running: Service, receiver: Receiver, command: str, printed: str) -> None:
    # Given a job that prints a line that its engine cuts, at an arbitrary place
    job_id = post(running, receiver, command=command)
    running.wait_complete(job_id)
    event_types(receiver, job_id)

    # I expect the exact bytes as text, and lines and events that distinguish cuts from line feeds
    answer = running.request("GET", f"/v1/jobs/{job_id}/logs")
    assert answer.content == printed.encode()
    whole = printed if printed.endswith("\n") else printed + "\n"
    assert "".join(line["text"] + "\n" * ("partial" not in line) for line in lines_of(running, job_id)) == whole
    assert sent_text(receiver, job_id) == whole


def test_a_failed_job_has_its_exit_code(running: Service, receiver: Receiver) -> None:
    job_id = post(running, receiver, command="exit 3")
    job = running.wait_complete(job_id)

    assert (job["status"], job["reason"], job["exitCode"]) == ("failed", "exit_code", 3)
    assert event_types(receiver, job_id) == ["start", "exit", "complete"]


def test_an_argument_list_is_not_passed_to_a_shell(running: Service) -> None:
    job_id = running.post_job(command=["echo", "$HOME", "a b", "*"])
    running.wait_complete(job_id)

    assert log_of(running, job_id) == "$HOME a b *\n"


def test_a_job_that_takes_too_long_is_stopped(running: Service, receiver: Receiver) -> None:
    # When
    job_id = post(running, receiver, command="sleep 600", timeoutSeconds=2)
    job = running.wait_complete(job_id)

    # I expect it to end within the grace period
    assert (job["status"], job["reason"]) == ("failed", "timeout")
    assert 2 <= data_of(receiver, job_id, "exit")["durationSeconds"] < 2 + 10
    assert event_types(receiver, job_id) == ["start", "exit", "complete"]


def test_a_job_that_exceeds_its_memory_is_killed(running: Service, receiver: Receiver) -> None:
    job_id = post(running, receiver, command="exec tail -c 300m /dev/zero", memory=32)
    job = running.wait_complete(job_id)

    assert (job["status"], job["reason"], job["exitCode"]) == ("failed", "oom", 137)
    assert event_types(receiver, job_id) == ["start", "exit", "complete"]


def test_a_job_that_kills_itself_is_not_out_of_memory(running: Service) -> None:
    job_id = running.post_job(command="sh -c 'kill -9 $$'")
    job = running.wait_complete(job_id)

    assert (job["status"], job["reason"], job["exitCode"]) == ("failed", "exit_code", 137)


def test_a_running_job_is_cancelled(running: Service, receiver: Receiver) -> None:
    # Given
    job_id = post(running, receiver, command="echo ready; sleep 600")
    running.wait_status(job_id, "running")

    # When
    assert running.request("DELETE", f"/v1/jobs/{job_id}").status_code == 204

    # I expect the status at once, and the end soon after
    assert running.get_job(job_id)["status"] == "cancelled"
    running.wait_complete(job_id, timeout=8)
    assert [type_ for type_ in event_types(receiver, job_id) if type_ != "log"] == ["start", "exit", "complete"]
    assert data_of(receiver, job_id, "exit")["reason"] == "cancelled"


def test_a_workspace_behind_a_dangling_link_belongs_to_the_user(running: Service) -> None:
    # Given an image with a user, whose workspace is a dangling link
    host = os.environ["DOCKER_HOST"]
    built_images.import_busybox(host, LINKED, ["USER nobody"], links={"/work": "/data/deep"})

    # When a job writes there, and to a directory that is lost when its process ends
    job_id = running.post_job(
        image=LINKED,
        pullPolicy="never",
        workspace="/work",
        command="cp in out && ln -s /dev/shm memory && echo x > memory/out && ls memory",
        inputs=[{"type": "file", "path": "in", "content": "hello"}],
        outputs=[{"type": "event", "path": "out"}, {"type": "event", "path": "memory/out"}],
    )

    # I expect it to complete, and an error that explains why the second file is missing
    job = running.wait_complete(job_id)
    assert (job["status"], job["outputs"][0]["status"]) == ("completed", "success")
    assert job["outputs"][1]["error"] == '"memory/out" cannot be read: files below /dev are lost when the process ends'
    assert log_of(running, job_id) == "out\n"
    built_images.remove(host, LINKED)


def test_a_missing_image_ends_the_job_with_an_error(running: Service, receiver: Receiver) -> None:
    job_id = post(running, receiver, image="no-such-image:1", pullPolicy="never")
    job = running.wait_complete(job_id)

    assert (job["status"], job["reason"], job["exitCode"]) == ("failed", "image_pull", -1)
    assert "no-such-image" in job["error"]
    assert event_types(receiver, job_id) == ["exit", "complete"]


def test_a_missing_input_ends_the_job(running: Service, receiver: Receiver) -> None:
    with FileServer() as files:
        # Given a download that does not exist
        url = files.url("/missing") + "?token=canary"

        # When
        inputs = [
            {"id": "a", "type": "download", "path": "a", "url": url},
            {"id": "b", "type": "file", "path": "b", "content": ""},
        ]
        job_id = post(running, receiver, command="true", inputs=inputs)
        job = running.wait_complete(job_id)

    # I expect
    assert (job["status"], job["reason"]) == ("failed", "input_failed")
    assert [item["status"] for item in job["inputs"]] == ["failed", "skipped"]
    assert event_types(receiver, job_id) == ["input", "exit", "complete"]
    assert "canary" not in str(job) + str(receiver.events)


def test_an_unreachable_callback_delays_events_but_not_the_job(running: Service) -> None:
    # Given a callback on a port that is not open yet
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job_id = running.post_job(command="echo hello", callback={"url": f"http://127.0.0.1:{port}/", "key": KEY})

    # I expect the job to end meanwhile
    assert running.wait_complete(job_id)["status"] == "completed"

    # When the port is opened
    with Receiver(port=port) as receiver:
        # I expect all events, in order
        assert event_types(receiver, job_id) == ["start", "log", "exit", "complete"]


def test_ids_are_unique(running: Service) -> None:
    running.post_job(id="twice", command="true")
    answer = running.request("POST", "/v1/jobs", json={"id": "twice", "image": "alpine:latest"})

    assert answer.status_code == 409
    running.wait_complete("twice")


def test_jobs_cannot_reach_one_another(running: Service) -> None:
    # Given a job that listens on a port
    server = running.post_job(command="hostname -i; while :; do echo reached | nc -l -p 8000; done")
    running.wait_status(server, "running")
    address = wait_for(lambda: log_of(running, server).strip(), 20, "its address")

    # When another job connects to it
    caller = running.post_job(command=f"nc -w 3 {address} 8000")

    # I expect no answer
    job = running.wait_complete(caller)
    assert job["status"] == "failed"
    assert "reached" not in log_of(running, caller)
    assert running.get_job(server)["status"] == "running"
    running.request("DELETE", f"/v1/jobs/{server}")
    running.wait_complete(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install firewall rules")
def test_a_job_cannot_reach_its_node(running: Service) -> None:
    # Given a server on all addresses of this machine
    with socket.create_server(("", 0)) as server:
        server.setblocking(False)

        # When a job connects to it
        gateway = "$(ip route | sed -n 's/^default via \\([^ ]*\\) .*/\\1/p')"
        job = running.post_job(command=f"nc -w 3 {gateway} {server.getsockname()[1]} < /dev/null")

        # I expect the firewall to refuse that, by the service's default configuration
        assert running.wait_complete(job)["status"] == "failed"
        with pytest.raises(BlockingIOError):
            server.accept()
    assert "jobs can reach" not in running.request("GET", "/readyz").text


def test_a_job_without_network_has_loopback_only(running: Service) -> None:
    job_id = running.post_job(command="ls /sys/class/net", network="none")
    running.wait_complete(job_id)

    assert log_of(running, job_id).split() == ["lo"]
