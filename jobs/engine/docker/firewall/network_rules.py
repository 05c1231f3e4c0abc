"""What the firewall lets the containers of a network do, independent of the program that installs it."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DNS_PORT: Final = 53
# ICMPv6 messages by which neighbors find each other. Without them nothing can be sent over IPv6.
NEIGHBOR_SOLICITATION: Final = 135
NEIGHBOR_ADVERTISEMENT: Final = 136

_ID_LENGTH: Final = 12  # of an id's characters, as Docker uses in the names of bridges
_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """The rules of one network: nothing from its bridge reaches this machine, another container there, or a denied network.

    Name servers are an exception, on their port. If this machine replaces the address that a container has used, as it does for
    the published ports of others, name servers are recognized by the original one, and everything else is refused.
    """

    name: str  # of the table, or the beginning of the names of the chains
    bridge: str  # the interface from which the packets of the containers come
    denied: tuple[Network, ...]
    name_servers: tuple[Address, ...]

    def denied_v4(self) -> list[IPv4Network]:
        """Return the denied networks of IPv4, without overlaps."""
        return list(collapse_addresses(network for network in self.denied if isinstance(network, IPv4Network)))

    def denied_v6(self) -> list[IPv6Network]:
        """Return the denied networks of IPv6, without overlaps, and how a NAT64 gateway is asked for those of IPv4."""
        given = [network for network in self.denied if isinstance(network, IPv6Network)]
        return list(collapse_addresses([*given, *map(_through_nat64, self.denied_v4())]))

    def servers_v4(self) -> list[IPv4Address]:
        return [server for server in self.name_servers if isinstance(server, IPv4Address)]

    def servers_v6(self) -> list[IPv6Address]:
        return [server for server in self.name_servers if isinstance(server, IPv6Address)]


def bridge_name(network_id: str) -> str:
    """Return the interface that Docker makes for a network."""
    return f"br-{network_id[:_ID_LENGTH]}"


def rules_name(owner: str, network_id: str) -> str:
    """Return the name for the rules of a network. `owner` is the installation that has made it."""
    return f"{owner}-{network_id[:_ID_LENGTH]}"


def unused_names(names: Iterable[str], owner: str, network_ids: Iterable[str]) -> list[tuple[str, str]]:
    """Return those of `names` that are rules of the owner for other networks than these, each with its bridge."""
    used = {rules_name(owner, network_id) for network_id in network_ids}
    prefix = f"{owner}-"
    return [
        (name, bridge_name(name.removeprefix(prefix)))
        for name in names
        if name.startswith(prefix) and name not in used and len(name) == len(prefix) + _ID_LENGTH
    ]


def _through_nat64(network: IPv4Network) -> IPv6Network:
    return IPv6Network((int(_NAT64.network_address) + int(network.network_address), _NAT64.prefixlen + network.prefixlen))
