"""Which addresses outgoing requests may reach."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.egress import allowed_addresses

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
)
def test_public_addresses_are_always_allowed(address: str) -> None:
    assert allowed_addresses.is_allowed(ip_address(address), "example.com", (), frozenset())


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "192.0.0.8"),
        *("192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *(
            "::",
            "::1",
            "fe80::1",
            "fe80::1%1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "64:ff9b:1::1",
            "::127.0.0.1",
        ),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::10.0.0.1", "2002:7f00:1::1", "2002:a9fe:a9fe::1"),
        "2001:0:7f00:1:0:0:f7f7:f7f7",  # Teredo: a private server
        "2001:0:808:808:0:0:80ff:fffe",  # Teredo: a private client (bits inverted)
    ],
)
def test_other_addresses_are_refused_unless_listed(address: str) -> None:
    assert not allowed_addresses.is_allowed(ip_address(address), "example.com", (), frozenset())


@given(st.ip_addresses(v=4))
def test_an_embedded_ipv4_address_is_treated_as_that_address(address: IPv4Address) -> None:
    # Given an IPv4 address, and IPv6 addresses that embed it
    number = int(address)
    embedding = [
        IPv6Address(0xFFFF << 32 | number),  # mapped
        IPv6Address(0x0064FF9B << 96 | number),  # NAT64
        IPv6Address(0x2002 << 112 | number << 80 | 1),  # 6to4
    ]

    # I expect the same answer for all of them, under any rules
    for networks in ((), (ip_network("10.0.0.0/8"),), (ip_network("0.0.0.0/0"),)):
        expected = allowed_addresses.is_allowed(address, "h", networks, frozenset())
        assert [allowed_addresses.is_allowed(address6, "h", networks, frozenset()) for address6 in embedding] == [expected] * 3


@given(st.ip_addresses())
def test_a_listed_network_allows_its_addresses(address: IPv4Address | IPv6Address) -> None:
    target = allowed_addresses.targets(address)
    networks = [ip_network(f"{item}/{item.max_prefixlen}") for item in target]
    assert allowed_addresses.is_allowed(address, "h", networks, frozenset())


def test_a_listed_name_allows_private_addresses_and_no_others() -> None:
    hosts = frozenset({"build.internal"})
    assert allowed_addresses.is_allowed(ip_address("10.1.2.3"), "Build.Internal.", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("10.1.2.3"), "other.internal", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("224.0.0.1"), "build.internal", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("0.0.0.0"), "build.internal", (), hosts)
