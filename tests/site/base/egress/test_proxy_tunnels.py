"""Outgoing requests through EGRESS_PROXY."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator_site.base.egress import connection_pool, http_client
from orchestrator_site.base.values.http_urls import parse
from tests.helpers.certificates import certificate, tls_server
from tests.helpers.connect_proxy import ENDLESS, ConnectProxy
from tests.helpers.receiver import Receiver
from tests.site.base.egress.sending import SECRET, get

pytestmark = pytest.mark.stateless

REFUSED = b"HTTP/1.1 %d Sorry\r\nContent-Length: 6\r\n\r\ns3cr3t"


@pytest.fixture
def use(settings: Any, egress_allow: Any, fresh_pool: None) -> Callable[[str], None]:
    """Return a function that sets EGRESS_PROXY."""

    def set_proxy(url: str) -> None:
        settings.CONFIGURATION = replace(settings.CONFIGURATION, egress_proxy=parse(url))

    return set_proxy


@pytest.fixture
def proxy(use: Callable[[str], None]) -> Iterator[ConnectProxy]:
    with ConnectProxy() as one:
        use(one.url)
        yield one


def test_the_proxy_gets_the_checked_address_and_the_server_the_name(
    receiver: Receiver, proxy: ConnectProxy, names: dict[str, list[str]], egress_allow: Any
) -> None:
    # Given a name with a forbidden address and an allowed one
    names["hook.test"] = ["10.255.255.1", "127.0.0.1"]

    # When it is requested twice
    for _ in range(2):
        assert get(f"http://hook.test:{receiver.port}/x")[0] == 200

    # I expect one tunnel to the allowed address, and the name inside it
    assert proxy.targets == [f"127.0.0.1:{receiver.port}"]
    assert [request.headers["host"] for request in receiver.requests] == [f"hook.test:{receiver.port}"] * 2
    assert receiver.requests[0].target == "/x"


def test_tls_is_checked_by_the_name(
    proxy: ConnectProxy, names: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server with a certificate for its name
    path = certificate(tmp_path, "hook.test")
    names["hook.test"] = names["other.test"] = ["127.0.0.1"]
    monkeypatch.setattr(connection_pool.certifi, "where", lambda: str(path))
    with Receiver(tls=tls_server(path)) as server:
        # When it is requested through the proxy by that name, I expect its answer, and a failure by another name
        assert get(f"https://hook.test:{server.port}/") == (200, b"")
        with pytest.raises(http_client.EgressFailed, match="certificate verify failed") as failure:
            get(f"https://other.test:{server.port}/")
    assert not isinstance(failure.value, http_client.ProxyFailed)


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "localhost"])
def test_the_proxy_is_not_asked_for_what_is_not_allowed(proxy: ConnectProxy, egress_allow: Any, use: Any, host: str) -> None:
    egress_allow()
    use(proxy.url)
    with pytest.raises(http_client.EgressDenied):
        get(f"http://{host}/")
    assert proxy.heads == []


def test_an_ipv6_address_is_in_brackets(proxy: ConnectProxy, egress_allow: Any, use: Any) -> None:
    egress_allow("fd00::/8")
    use(proxy.url)
    proxy.answer = REFUSED % 502
    with pytest.raises(http_client.EgressFailed):
        get("http://[fd00::1]/")
    assert proxy.targets == ["[fd00::1]:80"]


def test_credentials_are_for_the_proxy_only(receiver: Receiver, proxy: ConnectProxy, use: Any) -> None:
    # Given a proxy that wants a password
    use(f"http://us%40er:{SECRET}@127.0.0.1:{proxy.port}")

    # When a request is sent, I expect the password in the request to the proxy, and not in the one to the server
    get(receiver.url)
    assert "Proxy-Authorization: Basic dXNAZXI6czNjcjN0\r\n" in proxy.heads[0]
    assert not any("authorization" in name for name in receiver.requests[0].headers)

    # And in no error
    proxy.answer = REFUSED % 407
    with pytest.raises(http_client.ProxyFailed) as failure:
        get(receiver.url.replace("127.0.0.1", "localhost"))
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_the_proxy_cannot_reach_is_the_fault_of_the_destination(
    receiver: Receiver, proxy: ConnectProxy, status: int
) -> None:
    proxy.answer = REFUSED % status
    with pytest.raises(http_client.EgressFailed, match=f"cannot connect to 127.0.0.1 port {receiver.port}.*{status}") as failure:
        get(receiver.url)
    assert not isinstance(failure.value, http_client.ProxyFailed)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize(
    "answer",
    [
        *(REFUSED % 400, REFUSED % 403, REFUSED % 407, REFUSED % 500, REFUSED % 301),
        *(b"SSH-2.0-s3cr3t\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 abc\r\n\r\n", ENDLESS),
    ],
)
def test_anything_else_is_the_fault_of_the_proxy(receiver: Receiver, proxy: ConnectProxy, answer: bytes) -> None:
    proxy.answer = answer
    with pytest.raises(http_client.ProxyFailed, match="the proxy of EGRESS_PROXY") as failure:
        get(receiver.url)
    assert receiver.requests == []
    assert SECRET not in str(failure.value)


def test_a_proxy_that_is_down_is_a_failure_of_its_own(receiver: Receiver, use: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use(f"http://127.0.0.1:{port}")
    with pytest.raises(http_client.ProxyFailed, match="the proxy of EGRESS_PROXY cannot be reached"):
        get(receiver.url)
    assert receiver.requests == []


def test_a_tunnel_that_takes_too_long_is_the_fault_of_the_destination(receiver: Receiver, proxy: ConnectProxy) -> None:
    proxy.answer = b""
    with pytest.raises(http_client.EgressFailed) as failure:
        get(receiver.url, connect_timeout=0.2)
    assert failure.value.timed_out
    assert not isinstance(failure.value, http_client.ProxyFailed)
