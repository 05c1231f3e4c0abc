"""API keys, and errors before a view is reached."""

from pathlib import Path

import pytest
from django.test import Client

from orchestrator_site.checks import check_api_keys
from tests.helpers.api_calls import Answer, configured, expect_error

pytestmark = pytest.mark.django_db
ADDRESSES = ("/v1/jobs", "/v1/jobs/a", "/v1/jobs/a/logs", "/v1/nothing", "/v1/", "/v1")


def call(client: Client, authorization: str | None, path: str = "/v1/jobs") -> Answer:
    return client.get(path, headers={} if authorization is None else {"Authorization": authorization})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("# made in spring\nfirst-key\n\n  second-key \n#off\n")
    return file


def test_no_key_is_needed_if_authentication_is_off(client: Client) -> None:
    with configured(api_auth_required=False):
        assert call(client, None).status_code == 200
        assert call(client, "Bearer whatever").status_code == 200


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_a_key_in_the_file_is_accepted(client: Client, key_file: Path, key: str) -> None:
    with configured(api_auth_required=True, api_key_file=key_file):
        assert call(client, f"Bearer {key}").status_code == 200
        assert call(client, f"bearer  {key}").status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer first-ke",
        "Bearer first-key second-key",
        "Bearer # made in spring",
        "Bearer #off",
        "first-key",
        "Basic first-key",
        "Bearer \xe4",
    ],
)
def test_other_authorizations_are_401(client: Client, key_file: Path, authorization: str | None) -> None:
    with configured(api_auth_required=True, api_key_file=key_file):
        answer = call(client, authorization)
    expect_error(answer, 401)
    assert answer["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("method", ["get", "post", "delete", "put"])
def test_every_address_checks_the_key_first(client: Client, key_file: Path, path: str, method: str) -> None:
    with configured(api_auth_required=True, api_key_file=key_file):
        expect_error(getattr(client, method)(f"{path}?unknown=1"), 401)


@pytest.mark.parametrize("path", ["/v1/openapi.json", "/v1/docs", "/livez"])
def test_some_addresses_need_no_key(client: Client, key_file: Path, path: str) -> None:
    with configured(api_auth_required=True, api_key_file=key_file):
        assert client.get(path).status_code == 200


def test_the_file_is_read_again_when_it_changes(client: Client, key_file: Path) -> None:
    with configured(api_auth_required=True, api_key_file=key_file):
        assert call(client, "Bearer first-key").status_code == 200
        key_file.write_text("third-key\n")
        assert call(client, "Bearer first-key").status_code == 401
        assert call(client, "Bearer third-key").status_code == 200
        key_file.unlink()
        assert call(client, "Bearer third-key").status_code == 401


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_without_any_key_requests_are_401_and_the_log_says_why(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    file = None
    if content is not None:
        file = tmp_path / "keys"
        file.write_text(content)
    with configured(api_auth_required=True, api_key_file=file):
        expect_error(call(client, "Bearer "), 401)
        expect_error(call(client, "Bearer x"), 401)
    assert "no API key" in caplog.text


def test_no_key_is_logged(client: Client, key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with configured(api_auth_required=True, api_key_file=key_file):
        call(client, "Bearer canary-1")
    assert "canary-1" not in caplog.text


def test_the_system_check_warns_of_a_service_without_keys(key_file: Path) -> None:
    with configured(api_auth_required=True, api_key_file=None):
        assert [message.id for message in check_api_keys()] == ["orchestrator.W001"]
    with configured(api_auth_required=True, api_key_file=key_file):
        assert check_api_keys() == []


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/jobs/", "/v1/a%0Ab", "/v1/%FF", "/v1//jobs"])
def test_an_unknown_address_is_404(client: Client, path: str) -> None:
    expect_error(client.get(path), 404)
    expect_error(client.put(path), 404)


def test_an_unknown_host_name_is_400(client: Client) -> None:
    expect_error(client.get("/v1/jobs", headers={"Host": "evil.example"}), 400)
    expect_error(client.get("/v1/jobs", headers={"Host": "a b"}), 400)
