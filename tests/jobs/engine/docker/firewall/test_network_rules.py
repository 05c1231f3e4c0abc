"""The text of firewall rules as a function of what is denied, for both programs."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.docker.firewall import iptables, nftables
from jobs.engine.docker.firewall.network_rules import Address, Network, NetworkRules, bridge_name, rules_name, unused_names

pytestmark = pytest.mark.stateless

NETWORK_ID = "0123456789abcdef"
OWNER = "orc1a2b3c4d"
MAX_CHAIN_NAME = 28  # of iptables

networks = st.one_of(
    st.builds(lambda address, length: ip_network((address, length), strict=False), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda address, length: ip_network((address, length), strict=False), st.ip_addresses(v=6), st.integers(0, 128)),
)
rules = st.builds(
    lambda denied, servers: NetworkRules(rules_name(OWNER, NETWORK_ID), bridge_name(NETWORK_ID), tuple(denied), tuple(servers)),
    st.lists(networks, max_size=6),
    st.lists(st.ip_addresses(), max_size=3, unique=True),
)


def lines_of_nft(rules: NetworkRules) -> list[str]:
    return [line.strip() for line in nftables.script(rules).splitlines()]


def lines_of_iptables(rules: NetworkRules) -> list[str]:
    return [line for program in ("iptables", "ip6tables") for line in iptables.definitions(rules, program)]


def denied_by_nft(lines: list[str]) -> list[Network]:
    found = [match[1] for line in lines if (match := re.fullmatch(r"ip6? daddr \{ (.*) \} goto refuse", line))]
    return [ip_network(word) for words in found for word in words.split(", ")]


def denied_by_iptables(lines: list[str]) -> list[Network]:
    return [ip_network(match[1]) for line in lines if (match := re.fullmatch(r"-A \S+-out -d (\S+) -j DROP", line))]


PROGRAMS = [
    pytest.param(lines_of_nft, denied_by_nft, id="nft"),
    pytest.param(lines_of_iptables, denied_by_iptables, id="iptables"),
]


@pytest.mark.parametrize(("lines_of", "denied_by"), PROGRAMS)
@given(rules=rules)
def test_what_is_denied_is_in_the_rules_and_nothing_else(
    lines_of: Callable[[NetworkRules], list[str]], denied_by: Callable[[list[str]], list[Network]], rules: NetworkRules
) -> None:
    # Given the networks in the text
    found = denied_by(lines_of(rules))

    # I expect those that are denied, without overlaps, and for IPv6 what reaches those of IPv4 through NAT64
    assert covered(found, 4) == covered(rules.denied, 4)
    through_nat64 = [nat64(network) for network in rules.denied if network.version == 4]
    assert covered(found, 6) == covered([*rules.denied, *through_nat64], 6)
    assert len(found) == len(covered(found, 4)) + len(covered(found, 6))


def covered(networks: tuple[Network, ...] | list[Network], version: int) -> list[Network]:
    return list(collapse_addresses(network for network in networks if network.version == version))  # type: ignore[type-var]


def nat64(network: Network) -> IPv6Network:
    """Return the addresses under which a NAT64 gateway with the well-known prefix is asked for a network of IPv4 (RFC 6052)."""
    return ip_network(f"64:ff9b::{network.network_address}/{96 + network.prefixlen}")  # type: ignore[return-value]


@pytest.mark.parametrize("lines_of", [lines_of_nft, lines_of_iptables], ids=["nft", "iptables"])
@given(rules=rules)
def test_name_servers_are_in_the_rules_with_their_port(
    lines_of: Callable[[NetworkRules], list[str]], rules: NetworkRules
) -> None:
    text = "\n".join(lines_of(rules))

    for server in rules.name_servers:
        assert re.search(rf"[ ,]{re.escape(str(server))}[ ,\n]", text)
    assert [line for line in text.splitlines() if "dport" in line and " 53 " not in f"{line} "] == []


@given(rules=rules)
def test_a_text_has_only_what_its_inputs_need(rules: NetworkRules) -> None:
    """Whatever is denied cannot end a statement and begin another."""
    for line in lines_of_iptables(rules):
        assert re.fullmatch(r"(:|-A )[\w.:/ -]+(\[0:0\])?", line)
    for line in lines_of_nft(rules):
        assert re.fullmatch(r"[\w.:/, ={}!\";-]*", line)
        assert line.count(";") == (2 if line.startswith("type filter hook") else 0)


def test_a_name_fits_into_a_chain_of_iptables() -> None:
    rules = NetworkRules(rules_name(OWNER, NETWORK_ID), bridge_name(NETWORK_ID), (), ())

    chains = {line.split()[0].removeprefix(":") for line in iptables.definitions(rules, "iptables") if line.startswith(":")}

    assert len(chains) == 2
    assert all(len(chain) <= MAX_CHAIN_NAME for chain in chains)


ids = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(owned=st.lists(ids, max_size=5), used=st.lists(ids, max_size=5), others=st.lists(ids, max_size=5))
def test_only_rules_of_the_owner_for_other_networks_are_unused(owned: list[str], used: list[str], others: list[str]) -> None:
    names = [rules_name(OWNER, one) for one in [*owned, *used]] + [rules_name("orc1a2b3c4d5", one) for one in others]

    found = unused_names([*names, OWNER, f"{OWNER}-filter", "filter"], OWNER, used)

    wanted = {one[:12] for one in owned} - {one[:12] for one in used}
    assert {(name, bridge) for name, bridge in found} == {(f"{OWNER}-{one}", f"br-{one}") for one in wanted}


@pytest.mark.parametrize(
    ("given", "v4", "v6"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"], ["64:ff9b::a00:0/104"]),
        ("fe80::/10", [], ["fe80::/10"]),
        ("0.0.0.0/0", ["0.0.0.0/0"], ["64:ff9b::/96"]),
    ],
)
def test_denied_networks_by_version(given: str, v4: list[str], v6: list[str]) -> None:
    rules = NetworkRules("name", "br-0", (ip_network(given),), ())
    assert ([*map(str, rules.denied_v4())], [*map(str, rules.denied_v6())]) == (v4, v6)


def test_name_servers_by_version() -> None:
    servers: tuple[Address, ...] = (ip_address("1.1.1.1"), ip_address("2001:db8::1"))
    rules = NetworkRules("name", "br-0", (), servers)
    assert (rules.servers_v4(), rules.servers_v6()) == ([IPv4Address("1.1.1.1")], [IPv6Address("2001:db8::1")])
