"""Which addresses outgoing requests may reach."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.egress import allowed_addresses

pytestmark = pytest.mark.stateless


# All blocks of IANA's special-purpose registries of July 2026, those within others included.
REGISTERED_V4 = """
0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29 192.0.0.8/32
192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24
192.88.99.2/32 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
"""
REGISTERED_V6 = """
::1/128 ::/128 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48
2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16
fc00::/7 fe80::/10
"""
MULTICAST = "224.0.0.0/4 ff00::/8"
NETWORKS = [ip_network(text) for text in (REGISTERED_V4 + REGISTERED_V6 + MULTICAST).split()]
METADATA = [
    *("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fd00:ec2::23"),  # Amazon's; also those of most other clouds
    *("fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"),  # Google, Azure, Alibaba, Oracle
]


def is_allowed(address: str | IPv4Address | IPv6Address, *networks: str) -> bool:
    return allowed_addresses.is_allowed(
        ip_address(str(address)), "example.com", [ip_network(network) for network in networks], frozenset()
    )


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_always_allowed(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_networks_of_the_registries_are_refused_from_their_first_to_their_last_address(
    network: IPv4Network | IPv6Network,
) -> None:
    assert not is_allowed(network[0])
    assert not is_allowed(network[-1])


@given(st.sampled_from(NETWORKS).flatmap(lambda network: st.ip_addresses(network=network)))
def test_an_address_of_the_registries_is_refused_in_every_notation(address: IPv4Address | IPv6Address) -> None:
    assert not any(map(is_allowed, notations(address)))


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_refused_in_every_notation(address: str) -> None:
    assert not any(map(is_allowed, notations(ip_address(address))))


def notations(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return an address, and those that lead to it through a translator or a tunnel, whatever the host and whatever the relay."""
    if isinstance(address, IPv6Address):
        return [address]
    number = int(address)
    embedded_at = [
        (0xFFFF << 32, 0),  # mapped
        (0, 0),  # compatible
        (0xFFFF << 48, 0),  # translated (SIIT)
        (0x0064FF9B << 96, 0),  # NAT64
        (0x0064FF9B_0001 << 80, 0),  # NAT64 of a site
        (0x0064FF9B_0001_0808_0008_0800 << 32, 0),  # the same with another prefix length
        (0x2002 << 112 | 0x0808_0808, 80),  # 6to4
        (0x2001_0000 << 96 | 0xF7F7_F7F7, 64),  # the server of a Teredo address
    ]
    embedding = [IPv6Address(prefix | number << shift) for prefix, shift in embedded_at]
    teredo_client = IPv6Address(0x2001_0000_0808_0808 << 64 | (number ^ 0xFFFF_FFFF))
    return [address, *embedding, teredo_client]


@pytest.mark.parametrize("address", ["fe80::1%1", "4000::1", "::2", "64:ff9a::808:808", "fec0::1"])
def test_what_is_not_assigned_is_refused(address: str) -> None:
    assert not is_allowed(address)


@given(st.ip_addresses(v=4))
def test_another_way_to_write_an_ipv4_address_is_treated_as_that_address(address: IPv4Address) -> None:
    # Given an IPv4 address, mapped and as of the well-known NAT64 prefix
    written = [IPv6Address(0xFFFF << 32 | int(address)), IPv6Address(0x0064FF9B << 96 | int(address))]

    # I expect the same answer for all of them, under any rules
    for networks in ((), ("10.0.0.0/8",), ("0.0.0.0/0",)):
        assert [is_allowed(address6, *networks) for address6 in written] == [is_allowed(address, *networks)] * 2


@given(st.ip_addresses())
def test_a_listed_network_allows_its_addresses(address: IPv4Address | IPv6Address) -> None:
    target = allowed_addresses.targets(address)
    assert is_allowed(address, *(f"{item}/{item.max_prefixlen}" for item in target))


@pytest.mark.parametrize("address", ["2002:7f00:1::1", "::127.0.0.1", "::ffff:0:127.0.0.1", "2001:0:7f00:1:0:0:f7f7:f7f7"])
def test_a_listed_tunnel_leads_only_to_allowed_addresses(address: str) -> None:
    assert not is_allowed(address, "2002::/16", "::/96", "::ffff:0:0:0/96", "2001::/32")


def test_a_listed_name_allows_private_addresses_and_no_others() -> None:
    hosts = frozenset({"build.internal"})
    assert allowed_addresses.is_allowed(ip_address("10.1.2.3"), "Build.Internal.", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("10.1.2.3"), "other.internal", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("224.0.0.1"), "build.internal", (), hosts)
    assert not allowed_addresses.is_allowed(ip_address("0.0.0.0"), "build.internal", (), hosts)
