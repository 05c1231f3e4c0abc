"""Which network addresses outgoing requests may reach (EGRESS_ALLOW in docs/configuration.md).

Public addresses are always allowed, others only if a network of EGRESS_ALLOW contains them or the host name is listed there.
An IPv6 address that embeds an IPv4 address is treated as the latter: a translator or tunnel would send the packets there.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import Final

from orchestrator_site.base.config.configuration import Network

Address = IPv4Address | IPv6Address

_NAT64: Final = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
# Special by IANA's registries, but public for the `ipaddress` module of some supported Python versions.
_SPECIAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20", "5f00::/16")
)


def is_allowed(address: Address, host: str, networks: Iterable[Network], hosts: frozenset[str]) -> bool:
    """Return whether a URL with this `host` may reach this `address`.

    A listed host name allows private addresses, but not multicast, reserved and unspecified ones.
    """
    networks = tuple(networks)
    is_listed = host.lower().rstrip(".") in hosts
    return all(
        is_public(target) or any(target in network for network in networks) or (is_listed and is_unicast(target))
        for target in targets(address)
    )


def targets(address: Address) -> tuple[Address, ...]:
    """Return where packets to `address` end: the IPv4 addresses embedded in it, or itself."""
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
    return (IPv6Address(int(address)),)  # without its zone: configured networks have none


def is_public(address: Address) -> bool:
    """Return whether `address` is a public address on the Internet."""
    if not is_unicast(address) or not address.is_global or any(address in network for network in _SPECIAL):
        return False
    return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST


def is_unicast(address: Address) -> bool:
    """Return whether a host can have this address. Loopback counts, although `ipaddress` calls that of IPv6 reserved."""
    if address.is_loopback:
        return True
    return not (address.is_multicast or address.is_reserved or address.is_unspecified)
