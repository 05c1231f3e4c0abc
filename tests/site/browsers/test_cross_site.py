"""Requests that browsers send on behalf of other sites are refused."""

from typing import Any

import pytest
from django.test import Client

from callbacks.models import Destination
from jobs.models import Job
from tests.callbacks.api.test_destinations_api import subscribe
from tests.helpers.api_calls import configured, expect_error

pytestmark = pytest.mark.django_db

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:3000"},
    {"Origin": "https://localhost"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "http://localhost, http://evil.example"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "something new"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:80"},
    {"Origin": "http://127.0.0.1:8080"},  # PUBLIC_URL
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
]
ADDRESSES = [
    "/v1",
    "/v1/jobs",
    "/v1/jobs/a",
    "/v1/jobs/a/logs",
    "/v1/destinations/1/pause",
    "/v1/openapi.json",
    "/v1/docs",
    "/v1/no",
]


@pytest.fixture
def browser() -> Client:
    """Return a client of http://localhost/, while PUBLIC_URL has another name."""
    return Client(SERVER_NAME="localhost")


@pytest.fixture(autouse=True)
def public_url() -> Any:
    with configured(public_url="http://127.0.0.1:8080"):
        yield


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("method", ["get", "head", "post", "put", "delete", "options"])
def test_a_cross_site_request_is_refused(browser: Client, headers: dict[str, str], method: str) -> None:
    for address in ADDRESSES:
        answer = getattr(browser, method)(address, headers=headers)
        assert answer.status_code == 403, address
        if method != "head":
            expect_error(answer, 403)


def test_a_cross_site_request_changes_nothing(browser: Client) -> None:
    # Given a destination
    destination = subscribe("http://a.example/")
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}

    # When a page of another site posts forms that would stop deliveries and create a job
    for address in (
        f"/v1/destinations/{destination.pk}/pause",
        f"/v1/destinations/{destination.pk}/redeliver?since=2026-01-01T00:00:00Z",
    ):
        expect_error(browser.post(address, headers=foreign), 403)
    expect_error(browser.post("/v1/jobs", b'{"image": "a"}', content_type="text/plain", headers=foreign), 403)
    expect_error(browser.post("/v1/jobs", b'{"image": "a"}', content_type="application/json", headers=foreign), 403)

    # I expect nothing to change
    assert not Destination.objects.get().paused
    assert Destination.objects.get().revive_since is None
    assert not Job.objects.exists()


@pytest.mark.parametrize("required", [True, False])
def test_a_cross_site_request_with_a_key_is_refused(browser: Client, required: bool, tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("the-key\n")
    with configured(api_auth_required=required, api_key_file=tmp_path / "keys"):
        for key in ("the-key", "another"):
            headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {key}"}
            expect_error(browser.get("/v1/jobs", headers=headers), 403)


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_clients_and_own_pages_are_served(browser: Client, headers: dict[str, str]) -> None:
    assert browser.get("/v1/docs", headers=headers).status_code == 200
    assert browser.get("/v1/openapi.json", headers=headers).status_code == 200
    posted = browser.post("/v1/jobs", b'{"image": "a"}', content_type="application/json", headers=headers)
    assert posted.status_code == 202


def test_other_sites_may_link_to_the_documentation_but_not_frame_it(browser: Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert browser.get("/v1/docs", headers=link).status_code == 200
    expect_error(browser.get("/v1/docs", headers={**link, "Sec-Fetch-Dest": "iframe"}), 403)
    expect_error(browser.get("/v1/jobs", headers=link), 403)


def test_a_rebound_host_name_is_refused(browser: Client) -> None:
    # Given a page whose host name now resolves to the service, so that its requests are same-origin for the browser
    headers = {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin", "Host": "evil.example"}
    # I expect the name to be refused
    expect_error(browser.get("/v1/jobs", headers=headers), 400)
    expect_error(browser.post("/v1/destinations/1/pause", headers=headers), 400)


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_a_body_without_a_json_content_type_is_415(browser: Client, content_type: str) -> None:
    request = {"CONTENT_TYPE": content_type} if content_type else {}
    answer = browser.generic("POST", "/v1/jobs", b'{"image": "a"}', content_type="", **request)
    expect_error(answer, 415)
    assert not Job.objects.exists()
