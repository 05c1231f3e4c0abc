"""The address of the service and its key come from the environment, and are refused without being shown if they are invalid."""

import pytest

from orchestrator_site.client.errors import ClientError
from orchestrator_site.client.service.address import address_of, connection_pool, key_of

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"PUBLIC_URL": "https://jobs.example.com", "PORT": "9000"}, "https://jobs.example.com"),
        ({"ORCHESTRATOR_URL": "http://[::1]:80/jobs/", "PUBLIC_URL": "https://other.example"}, "http://[::1]:80/jobs"),
    ],
)
def test_the_address_comes_from_the_environment(environment: dict[str, str], url: str) -> None:
    assert address_of(environment) == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://a",
        "http://",
        "http://a:b",
        "http://a:0",
        "http://a?b",
        "http://u:secret@a",
        "http://a b",
        "http://ä",
        "http://a..b",
        f"http://{'a' * 64}.example",
    ],
)
def test_an_address_that_is_not_one_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ClientError, match=r"^ORCHESTRATOR_URL must be a URL such as") as refused:
        address_of({"ORCHESTRATOR_URL": url})

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("port", ["abc", "0", "65536", "8080/path", "٣"])
def test_a_port_that_is_not_one_is_refused(port: str) -> None:
    with pytest.raises(ClientError, match=r"^PORT must be a whole number from 1 to 65535$"):
        address_of({"PORT": port})


@pytest.mark.parametrize("key", ["a b", "a\nb", "ä"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ClientError, match=r"^ORCHESTRATOR_API_KEY has a character that no API key has$"):
        key_of({"ORCHESTRATOR_API_KEY": key})


@pytest.mark.parametrize("proxy", ["socks5://user:secret@proxy", "http://user:secret@a b", "http://user:secret@a:b", "::"])
def test_a_proxy_that_is_not_one_is_refused_without_showing_it(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy)

    with pytest.raises(ClientError, match=r"^HTTPS_PROXY must be the URL of an HTTP proxy") as refused:
        connection_pool("https://service.invalid")

    assert "secret" not in str(refused.value)
