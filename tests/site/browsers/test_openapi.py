"""The OpenAPI document: it is valid, it is complete, and the service does what it says."""

import json
import re
from contextlib import closing
from typing import Any

import pytest
import schemathesis
from django.test import Client
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import CHECKS

from callbacks.api import urls as callback_urls
from jobs.api import limits
from jobs.api import urls as job_urls
from tests.helpers.api_calls import expect_error
from tests.helpers.described_api import described_api
from tests.helpers.factories import make_job

pytestmark = pytest.mark.django_db
OPERATIONS = {
    ("/v1/jobs", "get"): {"200", "400", "401", "403", "429", "500", "503"},
    ("/v1/jobs", "post"): {"202", "400", "401", "403", "409", "413", "415", "429", "500", "503"},
    ("/v1/jobs/{job_id}", "get"): {"200", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/jobs/{job_id}", "delete"): {"204", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/jobs/{job_id}/logs", "get"): {"200", "204", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/jobs/{job_id}/events", "get"): {"200", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/jobs/{job_id}/events/redeliver", "post"): {"202", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/jobs/{job_id}/events/{event_id}/redeliver", "post"): {"202", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/destinations", "get"): {"200", "400", "401", "403", "429", "500", "503"},
    ("/v1/destinations/{destination_id}", "get"): {"200", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/destinations/{destination_id}/pause", "post"): {"200", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/destinations/{destination_id}/resume", "post"): {"200", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/destinations/{destination_id}/reset", "post"): {"200", "400", "401", "403", "404", "429", "500", "503"},
    ("/v1/destinations/{destination_id}/redeliver", "post"): {"202", "400", "401", "403", "404", "429", "500", "503"},
    ("/livez", "get"): {"200"},
    ("/readyz", "get"): {"200", "503"},
}


@pytest.fixture
def document(client: Client) -> dict[str, Any]:
    answer = client.get("/v1/openapi.json")
    assert answer["Content-Type"] == "application/json"
    body: dict[str, Any] = answer.json()
    return body


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_address_and_every_answer_is_described(document: dict[str, Any]) -> None:
    described = {
        (path, method): set(operation["responses"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert described.items() >= OPERATIONS.items()
    patterns = [*job_urls.urlpatterns, *callback_urls.urlpatterns]
    routes = {re.sub(r"<\w+:(\w+)>", r"{\1}", f"/v1/{route.pattern}") for route in patterns}
    assert routes <= {path for path, _ in described}


def test_every_operation_has_a_summary(document: dict[str, Any]) -> None:
    assert all(operation["summary"] for item in document["paths"].values() for operation in item.values())


def test_every_reference_has_a_target(document: dict[str, Any]) -> None:
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert names <= document["components"]["schemas"].keys()


def test_the_limits_are_shown(document: dict[str, Any]) -> None:
    members = document["components"]["schemas"]["NewJob"]["properties"]
    assert members["memory"]["maximum"] == limits.MEMORY[1]
    assert members["timeoutSeconds"]["default"] == limits.TIMEOUT_DEFAULT


@pytest.mark.parametrize(
    "name", ["NewJob", "FileInput", "DownloadInput", "UploadOutput", "EventOutput", "Callback", "JobSummary", "Event"]
)
def test_optional_members_of_requests_are_nullable(document: dict[str, Any], name: str) -> None:
    component = document["components"]["schemas"][name]
    nullable = {member for member, schema in component["properties"].items() if schema.get("nullable")}
    optional = component["properties"].keys() - set(component["required"])
    assert nullable == (set() if name in ("JobSummary", "Event") else optional)


def test_every_operation_needs_a_key(document: dict[str, Any]) -> None:
    scheme = document["components"]["securitySchemes"]["apiKey"]
    assert scheme == {"type": "http", "scheme": "bearer"}
    operations = [operation for path, item in document["paths"].items() if path.startswith("/v1/") for operation in item.values()]
    assert all(operation["security"] == [{"apiKey": []}] for operation in operations)


def test_the_page_loads_nothing_from_other_hosts(client: Client) -> None:
    answer = client.get("/v1/docs", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    page = answer.content.decode()
    assert "/v1/openapi.json" in page
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assets = re.findall(r"""(?:src|href)=["'](/static/[^"']+)""", page)
    assert assets
    for asset in assets:
        with closing(client.get(asset)) as answer:
            assert answer.status_code == 200


# Without the check that all requests that fit the document are accepted: JSON Schema has no words for some rules (unique
# paths, sums of sizes).
_CHECKS = [check for check in CHECKS.get_all() if check.__name__ != "positive_data_acceptance"]


def test_the_root_redirects_to_the_page(client: Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/v1/docs")


@pytest.mark.parametrize("path", ["/v1/docs", "/v1/openapi.json"])
def test_the_document_and_the_page_can_only_be_read(client: Client, path: str) -> None:
    for method in ("post", "delete", "options", "put"):
        answer = getattr(client, method)(path)
        expect_error(answer, 405)
        assert answer["Allow"] == "GET, HEAD"
    expect_error(client.get(f"{path}?x=1"), 400, "x")
    expect_error(client.get(f"{path}?{'&' * 2000}"), 400)
    assert client.get(path, headers={"Accept": "image/png"}).status_code == 200


@pytest.mark.django_db(transaction=True)  # a server closes its connection after each answer
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
@pytest.mark.parametrize(("path", "method"), [operation for operation in OPERATIONS if operation[0].startswith("/v1/")])
def test_the_service_does_what_the_document_says(path: str, method: str, mode: schemathesis.GenerationMode) -> None:
    # Given a job, and requests that are generated from the document
    make_job(id="a")

    # When requests are sent that fit the document, and others that do not
    @given(case=described_api()[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=12, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def send(case: schemathesis.Case) -> None:
        # I expect answers that the document describes, and no 500
        case.call_and_validate(headers={"Host": "localhost"}, checks=_CHECKS)

    send()
