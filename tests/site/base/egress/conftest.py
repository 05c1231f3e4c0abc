"""A receiver, names and rules for tests of outgoing requests."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from django.conf import settings as django_settings

from orchestrator_site.base.egress import http_client
from tests.helpers.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def egress_allow(settings: Any) -> Any:
    """Return a function that sets EGRESS_ALLOW."""

    def allow(*networks: str, hosts: frozenset[str] = frozenset()) -> None:
        settings.CONFIGURATION = replace(
            django_settings.CONFIGURATION,
            egress_networks=tuple(ip_network(network) for network in networks),
            egress_hosts=hosts,
        )

    allow("127.0.0.0/8", "::1/128")
    return allow


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return a table of names and their addresses that replaces DNS."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host not in table:
            return real(host, port, *args, **options)
        return [answer for address in table[host] for answer in real(address, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


@pytest.fixture
def fresh_pool() -> Iterator[None]:
    """Use a pool with connections and certificates for this test only."""
    http_client._pool.cache_clear()
    yield
    http_client._pool.cache_clear()
