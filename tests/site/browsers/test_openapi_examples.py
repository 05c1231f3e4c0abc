"""The examples and groups of the OpenAPI document: complete, valid, and what the service answers."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from django.utils import timezone
from openapi_schema_validator import OAS30Validator, oas30_format_checker

from jobs.api import examples
from jobs.models import Job, LogChunk
from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES
from tests.helpers.api_calls import Answer, configured, post_body
from tests.helpers.factories import make_job
from tests.site.browsers.test_openapi import OPERATIONS

pytestmark = pytest.mark.django_db
OF_THE_API = [operation for operation in OPERATIONS if operation[0].startswith("/v1/")]
Bodies = dict[str, dict[str, Any]]


@pytest.fixture
def document(client: Client) -> dict[str, Any]:
    body: dict[str, Any] = client.get("/v1/openapi.json").json()
    return body


def bodies_of(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the description of each body of an operation: of the request and of each answer."""
    for name, described in [("request", operation.get("requestBody", {})), *operation["responses"].items()]:
        for media_type, body in described.get("content", {}).items():
            yield f"{name} {media_type}", body


def all_bodies(document: dict[str, Any]) -> Bodies:
    return {
        f"{method} {path} {name}": body
        for path, item in document["paths"].items()
        for method, operation in item.items()
        for name, body in bodies_of(operation)
    }


def values(body: dict[str, Any]) -> list[Any]:
    """Return the examples of a body."""
    named = [example["value"] for example in body.get("examples", {}).values()]
    return [*named, *([body["example"]] if "example" in body else [])]


def example_of(document: dict[str, Any], path: str, method: str, status: int) -> Any:
    """Return the first example of an answer."""
    return values(document["paths"][path][method]["responses"][str(status)]["content"]["application/json"])[0]


# -- the document ----------------------------------------------------------------------------------
def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    bodies = all_bodies(document)
    assert len(bodies) > len(OPERATIONS)
    assert [name for name, body in bodies.items() if not values(body)] == []


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    for name, body in all_bodies(document).items():
        schema = {**body["schema"], "components": document["components"]}
        validator = OAS30Validator(schema, format_checker=oas30_format_checker)
        for value in values(body):
            assert [error.message for error in validator.iter_errors(value)] == [], name


def test_the_examples_of_a_job_have_every_member(document: dict[str, Any]) -> None:
    (body,) = document["paths"]["/v1/jobs/{job_id}"]["get"]["responses"]["200"]["content"].values()
    shown = {member for job in values(body) for member in job}
    assert shown == document["components"]["schemas"]["Job"]["properties"].keys()


def test_the_usage_in_the_examples_is_that_of_their_files_and_log() -> None:
    job: dict[str, Any] = examples.JOB_COMPLETED
    sums = [sum(item["bytes"] for item in job[items]) for items in ("inputs", "outputs")]
    assert [*sums, len(examples.LOG_TEXT)] == [job["usage"][f"{name}Bytes"] for name in ("input", "output", "log")]


def test_the_groups_are_in_the_order_in_which_a_client_needs_them(document: dict[str, Any]) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert list(tags) == ["jobs", "logs", "events", "destinations", "probes"]
    assert all(tags.values())
    used = {operation["operationId"]: operation["tags"] for item in document["paths"].values() for operation in item.values()}
    assert {name for names in used.values() for name in names} == set(tags)
    assert (used["getJob"], used["getLogs"], used["redeliverEvent"]) == (["jobs"], ["logs"], ["events"])


def test_a_client_first_learns_to_create_a_job(document: dict[str, Any]) -> None:
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    of_jobs = [operation["operationId"] for operation in operations if operation["tags"] == ["jobs"]]
    assert of_jobs == ["createJob", "listJobs", "getJob", "cancelJob"]


def test_every_operation_takes_and_every_answer_has_the_id_of_the_request(document: dict[str, Any]) -> None:
    for path, method in OF_THE_API:
        operation = document["paths"][path][method]
        assert [parameter["in"] for parameter in operation["parameters"] if parameter["name"] == "X-Request-Id"] == ["header"]
        assert all("X-Request-Id" in answer["headers"] for answer in operation["responses"].values())


def test_every_operation_and_the_whole_have_a_description(document: dict[str, Any]) -> None:
    assert [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if not operation.get("description")
    ] == []
    for topic in ("Keys", "Repeating requests", "Waiting", "Errors", "Pages"):
        assert f"**{topic}" in document["info"]["description"]


# -- the service -----------------------------------------------------------------------------------
def send(client: Client, path: str, method: str, query: str = "", **headers: str) -> Answer:
    """Send a request for a job, event or destination that does not exist."""
    url = path.format(job_id="nothing", event_id=uuid.uuid4(), destination_id=999)
    if (path, method) == ("/v1/jobs", "post"):
        return post_body(client, json.dumps(examples.SHELL_COMMAND), headers=headers)
    return getattr(client, method)(f"{url}?{query}", headers=headers)


def test_requests_as_in_the_examples_are_accepted(client: Client, document: dict[str, Any]) -> None:
    for body in values(document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]):
        answer = post_body(client, json.dumps(body))
        assert answer.status_code == 202, answer.content
        if "id" in body:
            assert answer.json() == example_of(document, "/v1/jobs", "post", 202)


@pytest.mark.parametrize(("path", "method"), [operation for operation in OF_THE_API if operation != ("/v1/jobs", "post")])
def test_an_unknown_parameter_is_refused_as_in_the_example(
    client: Client, document: dict[str, Any], path: str, method: str
) -> None:
    answer = send(client, path, method, "limits=1")
    assert (answer.status_code, answer.json()) == (400, example_of(document, path, method, 400))


def test_a_wrong_member_is_refused_as_in_the_example(client: Client, document: dict[str, Any]) -> None:
    body = json.loads(json.dumps(examples.FILES))
    body["inputs"][1]["url"] = "ftp://files.example.com/sales.csv"
    answer = post_body(client, json.dumps(body))
    assert (answer.status_code, answer.json()) == (400, example_of(document, "/v1/jobs", "post", 400))


@pytest.mark.parametrize(("path", "method"), OF_THE_API)
def test_a_request_without_a_key_is_refused_as_in_the_example(
    client: Client, document: dict[str, Any], tmp_path: Path, path: str, method: str
) -> None:
    (tmp_path / "keys").write_text("a-key\n")
    with configured(api_auth_required=True, api_key_file=tmp_path / "keys"):
        answer = send(client, path, method)
    assert (answer.status_code, answer.json()) == (401, example_of(document, path, method, 401))


@pytest.mark.parametrize(("path", "method"), OF_THE_API)
def test_a_request_of_another_site_is_refused_as_in_the_example(
    client: Client, document: dict[str, Any], path: str, method: str
) -> None:
    answer = send(client, path, method, Origin="https://other.example")
    assert (answer.status_code, answer.json()) == (403, example_of(document, path, method, 403))


@pytest.mark.parametrize(("path", "method"), [operation for operation in OF_THE_API if "404" in OPERATIONS[operation]])
def test_what_does_not_exist_is_404_as_in_the_example(client: Client, document: dict[str, Any], path: str, method: str) -> None:
    query = "since=2026-01-31T00:00:00Z" if path.startswith("/v1/destinations") and path.endswith("/redeliver") else ""
    answer = send(client, path, method, query)
    assert (answer.status_code, answer.json()) == (404, example_of(document, path, method, 404))


def test_jobs_are_refused_as_in_the_examples(client: Client, document: dict[str, Any]) -> None:
    body = json.dumps(examples.FILES)
    assert post_body(client, body).status_code == 202
    answers = [post_body(client, body), post_body(client, b" " * (MAX_BODY_BYTES + 1)), post_body(client, body, "text/plain")]
    assert [answer.status_code for answer in answers] == [409, 413, 415]
    for answer in answers:
        assert answer.json() == example_of(document, "/v1/jobs", "post", answer.status_code)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("a bug"), 500), (OperationalError("gone"), 503)])
@pytest.mark.parametrize(("path", "method"), OF_THE_API)
def test_a_failure_is_answered_as_in_the_example(
    client: Client,
    document: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    method: str,
    error: Exception,
    status: int,
) -> None:
    # Given a database that does not answer, or a bug
    def fail(*_: Any, **__: Any) -> None:
        raise error

    query = "since=2026-01-31T00:00:00Z" if path.startswith("/v1/destinations") and path.endswith("/redeliver") else ""
    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "cursor", fail)
        answer = send(client, path, method, query)

    # I expect the answer of the example, which says of an outage when to try again
    assert (answer.status_code, answer.json()) == (status, example_of(document, path, method, status))
    assert ("Retry-After" in answer) == (status == 503)


def test_a_log_is_answered_as_in_the_examples(client: Client, document: dict[str, Any]) -> None:
    # Given the log of the examples
    job = make_job(id="a")
    lines = [[line["stream"], line["time"], line["text"]] for line in examples.LINES]
    LogChunk.objects.create(job=job, first=1, count=len(lines), lines=lines)
    Job.objects.filter(pk=job.pk).update(log_next=len(lines) + 1, exited_at=timezone.now())

    # I expect each form of the answer to be that of its example
    content = document["paths"]["/v1/jobs/{job_id}/logs"]["get"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "text/plain", "text/event-stream"}
    for media_type, body in content.items():
        answer = client.get("/v1/jobs/a/logs", headers={"Accept": media_type})
        assert answer["Content-Type"].partition(";")[0] == media_type
        text = answer.getvalue().decode()
        assert [json.loads(text) if media_type == "application/json" else text] == values(body)
