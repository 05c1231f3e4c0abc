"""Which network addresses outgoing requests may reach (EGRESS_ALLOW in docs/configuration.md).

Public addresses always; all others only where a network of EGRESS_ALLOW holds them or the host's name is
listed there. Whatever carries an IPv4 address inside is judged by that one: a translator or tunnel would
bring the packets there.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import Final

from orchestrator_site.base.config.configuration import Network

Address = IPv4Address | IPv6Address

_NAT64: Final = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
# Special by IANA's registries, and taken for public by the `ipaddress` module of some supported Python.
_SPECIAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20", "5f00::/16")
)


def is_allowed(address: Address, host: str, networks: Iterable[Network], hosts: frozenset[str]) -> bool:
    """Whether a URL with this `host` may reach this `address`.

    A listed name opens private addresses, and never what no peer has: multicast, reserved, unspecified.
    """
    networks = tuple(networks)
    named = host.lower().rstrip(".") in hosts
    return all(
        is_public(target) or any(target in network for network in networks) or (named and is_unicast(target))
        for target in targets(address)
    )


def targets(address: Address) -> tuple[Address, ...]:
    """Where packets to `address` end: the IPv4 addresses inside it, or itself."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return (IPv6Address(int(address)),)  # without a zone, which no network of the list has


def is_public(address: Address) -> bool:
    """Whether anybody on the Internet may have this address."""
    if not is_unicast(address) or not address.is_global or any(address in network for network in _SPECIAL):
        return False
    return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST


def is_unicast(address: Address) -> bool:
    """Whether a peer can have this address at all. (IPv6 calls loopback reserved; a peer has it.)"""
    if address.is_loopback:
        return True
    return not (address.is_multicast or address.is_reserved or address.is_unspecified)
