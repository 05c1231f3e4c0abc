"""The two requests in the predecessor's README work unchanged."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import pytest

from tests.helpers import built_images
from tests.helpers.fileserver import FileServer
from tests.helpers.receiver import Receiver
from tests.helpers.service_processes import Service

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PYTHON = "python:3.12-slim"
SCRIPT = """
import json, os
lines = open("data/input.txt").read().splitlines()
print("processing", len(lines), "lines as", os.environ["MODE"], flush=True)
open("data/output.txt", "w").write("\\n".join(reversed(lines)))
json.dump({"lines": len(lines)}, open("data/metrics.json", "w"))
"""


@pytest.fixture
def python_image() -> Iterator[None]:
    """Provide `python:3.12-slim`, or a replacement under that name while the test runs."""
    host = os.environ["DOCKER_HOST"]
    with closing(built_images.client(host)) as engine:
        here = bool(engine.images.list(name=PYTHON))
    if not here:
        built_images.ensure_python(host, PYTHON)
    yield
    if not here:
        built_images.remove(host, PYTHON)


def test_the_smallest_request(running: Service) -> None:
    # When
    body = {"id": "my-job", "image": "alpine:latest", "command": "cat data/input.txt > data/output.txt"}
    answer = running.request("POST", "/v1/jobs", json=body)

    # I expect it to be accepted, and to fail because the file is missing
    assert answer.status_code == 202
    assert answer.json() == {"id": "my-job", "status": "accepted"}
    job = running.wait_complete("my-job")
    assert (job["status"], job["exitCode"]) == ("failed", 1)
    assert "data/output.txt" in running.request("GET", "/v1/jobs/my-job/logs").text


@pytest.mark.usefixtures("python_image")
def test_the_full_request(running: Service) -> None:
    with FileServer() as files, Receiver() as receiver:
        # Given a file to download
        source = files.serve("/input.txt", b"one\ntwo\nthree\n")
        body = {
            "id": "my-full-job",
            "image": PYTHON,
            "command": "python3 scripts/process.py",
            "cpu": 2,
            "memory": 512,
            "timeoutSeconds": 300,
            "environment": {"MODE": "production"},
            "meta": {"project": "demo"},
            "inputs": [
                {"id": "script", "type": "file", "path": "scripts/process.py", "content": SCRIPT},
                {"id": "data", "type": "download", "path": "data/input.txt", "url": source},
            ],
            "outputs": [
                {"id": "result", "type": "upload", "path": "data/output.txt", "url": files.url("/output.txt")},
                {"id": "metrics", "type": "event", "path": "data/metrics.json"},
            ],
            "callback": {"url": receiver.url, "key": "secret-key", "events": ["orchestrator.job.exit"]},
        }

        # When
        assert running.request("POST", "/v1/jobs", json=body).status_code == 202
        job = running.wait_complete("my-full-job", timeout=120)

        # I expect it to have run with all inputs and settings
        assert (job["status"], job["exitCode"]) == ("completed", 0), running.request("GET", "/v1/jobs/my-full-job/logs").text
        assert running.request("GET", "/v1/jobs/my-full-job/logs").text == "processing 3 lines as production\n"
        assert [item["status"] for item in job["inputs"] + job["outputs"]] == ["success"] * 4
        (upload,) = files.of("/output.txt")
        assert (upload.method, upload.size) == ("PUT", len(b"three\ntwo\none"))

        # And only the exit event to have been sent, signed
        (received,) = receiver.wait_for(1)
        received.verify("secret-key")
        assert received.json["type"] == "orchestrator.job.exit"
        assert received.json["jobsequence"] == 1
        data = received.json["data"]
        assert data.pop("usage") == {name: value for name, value in job["usage"].items() if name != "outputBytes"}
        assert data == {
            "jobId": "my-full-job",
            "meta": {"project": "demo"},
            "exitCode": 0,
            "status": "completed",
            "image": PYTHON,
            "durationSeconds": pytest.approx(job_seconds(job), abs=0.01),
        }
        assert "secret-key" not in json.dumps(job)


def job_seconds(job: dict[str, str]) -> float:
    return (datetime.fromisoformat(job["finishedAt"]) - datetime.fromisoformat(job["startedAt"])).total_seconds()
