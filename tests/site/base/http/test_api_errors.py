"""Every error is JSON, also outside the API, except in the admin, which answers in HTML."""

import pytest
from django.test import Client, override_settings
from django.urls import path

from orchestrator_site import urls
from tests.helpers.api_calls import configured, expect_error

pytestmark = pytest.mark.django_db
METHODS = ["get", "post", "put", "delete", "options", "trace", "patch"]
ASSET = "/static/admin/css/base.css"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("address", ["//v1/jobs", "/v2", "/index.php", "/static/", "/static/none.css", "/livez/", "/%ff"])
def test_an_unknown_address_is_404(client: Client, address: str, method: str) -> None:
    expect_error(getattr(client, method)(address), 404)


def test_other_methods_are_405(client: Client) -> None:
    for address in ("/", ASSET, "/livez", "/v1/docs"):
        answer = client.trace(address)
        expect_error(answer, 405)
        assert "GET" in answer["Allow"]
    expect_error(client.post(ASSET), 405)


@pytest.mark.parametrize("address", ["/", "//v1/jobs", "/v1/jobs", "/nothing"])
def test_an_unknown_host_name_is_400(client: Client, address: str) -> None:
    expect_error(client.get(address, headers={"Host": "evil.example"}), 400)
    expect_error(client.post(address, headers={"Host": "a b"}), 400)


def test_a_range_outside_a_file_is_416(client: Client) -> None:
    expect_error(client.get(ASSET, headers={"Range": "bytes=99999999-"}), 416)


def test_a_form_without_a_token_is_403() -> None:
    expect_error(Client(enforce_csrf_checks=True).post("/", {"a": "b"}), 403)


def fail(_: object) -> None:
    raise RuntimeError("canary-31")


class Failing:
    urlpatterns = [path("fails", fail), *urls.urlpatterns]


def test_an_exception_outside_the_api_is_500() -> None:
    client = Client(raise_request_exception=False)
    with override_settings(ROOT_URLCONF=Failing):
        assert "canary-31" not in expect_error(client.get("/fails"), 500)


@pytest.mark.parametrize("address", ["/admin", "/admin/nothing/", "/admin/jobs/job/1/"])
def test_the_admin_answers_errors_in_html(admin_client: Client, address: str) -> None:
    assert admin_client.get(address)["Content-Type"].startswith("text/html")


def test_other_answers_are_not_changed(client: Client) -> None:
    with configured(api_auth_required=False):
        assert client.get("/v1/jobs").json() == {"jobs": []}
    assert client.get("/")["Location"] == "/v1/docs"
    answer = client.get(ASSET)
    assert answer["Content-Type"].startswith("text/css")
    answer.close()
