"""A client that openapi-python-client generates from the OpenAPI document runs jobs with the embedded service."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from tests.acceptance.conftest import embedded_installation
from tests.helpers.service_processes import Service
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.any_engine, pytest.mark.stateless]
PACKAGE = "orchestrator_client"
KEY = "key-of-the-test"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path | None, docker_host: str) -> Iterator[Service]:
    """A running embedded installation that requires a key."""
    directory = tmp_path_factory.mktemp("state")
    (directory / "keys").write_text(f"{KEY}\n")
    keys = {"API_AUTH": "required", "API_KEY_FILE": str(directory / "keys")}
    with embedded_installation(directory, migrated_database, **keys) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of the generated package, with a key."""
    directory = tmp_path_factory.mktemp("client")
    document, configuration = directory / "openapi.json", directory / "configuration.yaml"
    document.write_text(service.request("GET", "/v1/openapi.json").text)
    configuration.write_text("post_hooks: []\n")  # which would format the code
    files = ["--path", document, "--config", configuration, "--output-path", directory / PACKAGE]
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning", *files]
    made = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        with client_with(service, KEY) as client:
            yield client
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def client_with(service: Service, key: str) -> Any:
    package = importlib.import_module(PACKAGE)
    return package.AuthenticatedClient(
        base_url=service.url,
        token=key,
        headers={"Accept": "application/json"},  # of the forms of a log, the one that the package reads
        timeout=60,
        raise_on_unexpected_status=True,
        httpx_args={"trust_env": False},
    )


def call(client: Any, tag: str, name: str, *path: str, **parameters: Any) -> Any:
    """Call an operation; return its response, whose `parsed` is a model."""
    operation = importlib.import_module(f"{PACKAGE}.api.{tag}.{name}")
    return operation.sync_detailed(*path, client=client, **parameters)


def new_job(**members: Any) -> Any:
    return importlib.import_module(f"{PACKAGE}.models").NewJob.from_dict({"image": "alpine:latest", **members})


def wait_for_end(client: Any, job_id: str) -> Any:
    def ended() -> Any:
        job = call(client, "jobs", "get_job", job_id, wait=10).parsed
        return job if job.status not in ("accepted", "running") else None

    return wait_for(ended, 90, f"{job_id} to end")


def test_a_job_runs_to_its_end(client: Any, httpserver: HTTPServer) -> None:
    # Given a receiver of events
    httpserver.expect_request("/events").respond_with_data("")

    # When a job is posted
    body = new_job(
        id="first",
        command="echo hello; echo oops >&2; cat name; exit 3",
        meta={"team": "reports"},
        inputs=[{"type": "file", "path": "name", "content": "orchestrator\n"}],
        callback={"url": httpserver.url_for("/events")},
    )
    accepted = call(client, "jobs", "create_job", body=body)
    assert (accepted.status_code, accepted.parsed.id, accepted.headers["Location"]) == (202, "first", "/v1/jobs/first")

    # I expect the client to see how it ends
    job = wait_for_end(client, "first")
    assert (job.status, job.exit_code, job.reason) == ("failed", 3, "exit_code")
    assert job.meta.to_dict() == {"team": "reports"}
    assert [file.status for file in job.inputs] == ["success"]
    assert call(client, "jobs", "list_jobs").parsed.jobs[0].id == "first"

    # and its log
    def whole_log() -> Any:
        page = call(client, "logs", "get_logs", "first", wait=10).parsed
        return page.lines if page.complete else None

    lines = wait_for(whole_log, 60, "the log to end")
    assert [line.text for line in lines if line.stream == "stdout"] == ["hello", "orchestrator"]
    assert [line.text for line in lines if line.stream == "stderr"] == ["oops"]

    # and its events, all of which are delivered
    def delivered() -> Any:
        events = [event.to_dict() for event in call(client, "events", "list_events", "first").parsed.events]
        return events if events and all(event["state"] == "delivered" for event in events) else None

    types = [event["type"].removeprefix("orchestrator.job.") for event in wait_for(delivered, 60, "the events to be delivered")]
    assert (types[:2], types[-2:]) == (["input", "start"], ["exit", "complete"])
    assert len(call(client, "destinations", "list_destinations").parsed.destinations) == 1


def test_a_job_is_cancelled(client: Any) -> None:
    assert call(client, "jobs", "create_job", body=new_job(id="second", command="sleep 600")).status_code == 202
    assert call(client, "jobs", "cancel_job", "second").status_code == 204
    assert wait_for_end(client, "second").status == "cancelled"


def test_errors_are_models(client: Any, service: Service) -> None:
    missing = call(client, "jobs", "get_job", "nothing")
    assert (missing.status_code, missing.parsed.error) == (404, "there is no job with this id")
    wrong = call(client, "jobs", "create_job", body=new_job(memory=1))
    assert (wrong.status_code, wrong.parsed.field) == (400, "memory")
    with client_with(service, "another key") as stranger:
        refused = call(stranger, "jobs", "list_jobs")
    assert (refused.status_code, refused.parsed.error) == (401, "unknown API key")
