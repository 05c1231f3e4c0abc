"""The service's own addresses: outgoing requests do not reach them unless they are listed."""

import logging
import socket
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from typing import Any

import pytest

from orchestrator_site.base.egress import host_checks, http_client, own_addresses
from orchestrator_site.base.egress.own_addresses import PublicUrl
from orchestrator_site.base.intervals import EgressIntervals
from tests.helpers.receiver import Receiver
from tests.helpers.waiting import wait_for
from tests.site.base.egress.sending import get

pytestmark = pytest.mark.stateless

PUBLIC, OTHER = "93.184.216.34", "93.184.216.35"


def reach(host: str, address: str) -> None:
    host_checks.check_new_address(host, address, timeout=5)


@pytest.fixture
def public_url(settings: Any, egress_allow: Any, names: dict[str, list[str]]) -> Any:
    """Return a function that sets EGRESS_ALLOW, where PUBLIC_URL has a public address."""
    names["service.test"] = [PUBLIC]

    def allow(*networks: str, hosts: frozenset[str] = frozenset()) -> None:
        egress_allow(*networks, hosts=hosts)
        settings.CONFIGURATION = replace(settings.CONFIGURATION, public_url="https://Service.test/base")

    own_addresses._public_url.cache_clear()
    yield allow
    own_addresses._public_url.cache_clear()


def test_an_address_of_an_interface_is_refused_before_a_connection_is_made(
    receiver: Receiver, public_url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an interface with an address that counts as public
    public_url()
    monkeypatch.setattr(host_checks, "is_allowed", lambda *_: True)

    # When it is requested, I expect a refusal that names no address, and no request
    with pytest.raises(http_client.EgressDenied, match="localhost resolves to an address of this service"):
        get(f"http://localhost:{receiver.port}/")
    assert receiver.requests == []

    # And after it was listed, an answer
    public_url("127.0.0.0/8", "::1/128")
    assert get(f"http://localhost:{receiver.port}/")[0] == 200


def test_only_addresses_of_interfaces_are_on_this_machine() -> None:
    assert own_addresses.is_on_this_machine(ip_address("127.0.0.1"))
    assert not own_addresses.is_on_this_machine(ip_address(PUBLIC))
    assert not own_addresses.is_on_this_machine(ip_address("2606:4700::1111"))


def test_the_addresses_of_public_url_are_refused_unless_they_are_listed(public_url: Any) -> None:
    # Given a public URL, whose address is reached by another name, by itself and through NAT64
    public_url()
    for host, address in (("other.test", PUBLIC), (PUBLIC, PUBLIC), ("other.test", f"64:ff9b::{PUBLIC}")):
        with pytest.raises(http_client.EgressDenied, match="an address of this service"):
            reach(host, address)

    # I expect its name to be refused whatever its address is now, and another host at another address to be allowed
    with pytest.raises(http_client.EgressDenied, match="an address of this service"):
        reach("service.test.", OTHER)
    reach("other.test", OTHER)

    # And all of it to be allowed where the operator lists the address or the name
    public_url(f"{PUBLIC}/32")
    reach("other.test", PUBLIC)
    public_url(hosts=frozenset({"service.test"}))
    reach("service.test", PUBLIC)


def test_the_addresses_of_public_url_may_change(names: dict[str, list[str]], caplog: pytest.LogCaptureFixture) -> None:
    # Given the addresses of a public URL
    names["service.test"] = [PUBLIC]
    public = PublicUrl("https://service.test", EgressIntervals(public_url=0))
    assert public.addresses(5) == {ip_address(PUBLIC)}

    # When its name gets others, I expect these soon
    names["service.test"] = [OTHER]
    wait_for(lambda: public.addresses(5) == {ip_address(OTHER)})

    # And the same while the name cannot be resolved, with a line in the log
    names["service.test"] = ["not an address"]
    with caplog.at_level(logging.WARNING):
        wait_for(lambda: public.addresses(5) == {ip_address(OTHER)} and "PUBLIC_URL" in caplog.text)


def test_no_public_address_is_reached_while_the_service_does_not_know_its_own(
    public_url: Any, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a name server that does not answer for PUBLIC_URL yet
    public_url("10.1.0.0/16")
    intervals = EgressIntervals(public_url_wait=0.5, public_url_retry=0)
    monkeypatch.setattr(own_addresses, "_public_url", cache(lambda url: PublicUrl(url, intervals)))
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", failing(socket.EAI_AGAIN))

        # I expect all public addresses to be refused for now, its own and others, and what is listed to be allowed
        for address in (PUBLIC, OTHER):
            with pytest.raises(http_client.ServiceFailed, match="the addresses of this service are not known"):
                reach("other.test", address)
        reach("other.test", "10.1.2.3")

    # And its own only to be refused soon after the name server answers
    def is_refused_as_own() -> bool:
        try:
            reach("other.test", PUBLIC)
        except http_client.ServiceFailed:
            return False
        except http_client.EgressDenied:
            return True
        raise AssertionError("the service's own address was allowed")

    wait_for(is_refused_as_own)
    reach("other.test", OTHER)


@pytest.mark.parametrize("error", [socket.EAI_NONAME, socket.EAI_NODATA])
def test_a_public_url_without_addresses_leads_nowhere(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", failing(error))
    assert PublicUrl("https://service.test").addresses(5) == frozenset()


def failing(error: int) -> Any:
    """Return a resolver that fails with an error of `getaddrinfo`."""

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(error, "no answer")

    return getaddrinfo


def test_a_public_url_that_cannot_be_resolved_delays_only_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a resolver that hangs
    started: list[Any] = []
    monkeypatch.setattr(own_addresses.threading, "Thread", lambda **options: started.append(options) or _Hanging())
    public = PublicUrl("https://service.test", EgressIntervals(public_url_wait=0.01))

    # I expect an error after a short time, and no second look
    for _ in range(2):
        with pytest.raises(http_client.ServiceFailed):
            public.addresses(5)
    assert len(started) == 1
    assert public._awaited.is_set()


class _Hanging:
    def start(self) -> None: ...
