"""Which network addresses outgoing requests may reach (EGRESS_ALLOW in docs/configuration.md).

Public addresses are always allowed, others only if a network of EGRESS_ALLOW contains them or the host name is listed there.
An IPv6 address that embeds an IPv4 address leads to the latter, by a translator or a tunnel, so that one must be allowed, too.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from orchestrator_site.base.config.configuration import Network
from orchestrator_site.base.egress import special_networks

Address = IPv4Address | IPv6Address


def is_allowed(address: Address, host: str, networks: Iterable[Network], hosts: frozenset[str]) -> bool:
    """Return whether a URL with this `host` may reach this `address`: it is public, or EGRESS_ALLOW lists it."""
    networks = tuple(networks)
    return all(is_public(target) or is_listed(target, host, networks, hosts) for target in targets(address))


def is_listed(target: Address, host: str, networks: Iterable[Network], hosts: frozenset[str]) -> bool:
    """Return whether EGRESS_ALLOW contains the address or the host name.

    A listed host name allows private addresses, but not multicast, reserved and unspecified ones.
    """
    is_host_listed = host.lower().rstrip(".") in hosts
    return any(target in network for network in networks) or (is_host_listed and is_unicast(target))


@lru_cache(maxsize=1024)
def targets(address: Address) -> tuple[Address, ...]:
    """Return where packets to `address` may end: itself, without its zone, and the IPv4 addresses embedded in it.

    A mapped address and one of the well-known NAT64 prefix are only another way to write the IPv4 address.
    """
    if isinstance(address, IPv4Address):
        return (address,)
    itself, last = IPv6Address(int(address)), IPv4Address(int(address) & 0xFFFF_FFFF)
    if itself in special_networks.MAPPED or itself in special_networks.NAT64:
        return (last,)
    if itself.sixtofour is not None:
        return (itself, itself.sixtofour)
    if itself.teredo is not None:
        return (itself, *itself.teredo)
    is_translated = itself in special_networks.TRANSLATED
    is_compatible = itself in special_networks.COMPATIBLE and not (itself.is_loopback or itself.is_unspecified)
    return (itself, last) if is_translated or is_compatible else (itself,)


@lru_cache(maxsize=1024)
def is_public(address: Address) -> bool:
    """Return whether `address` is a public address on the Internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in special_networks.IPV4)
    return address in special_networks.IPV6_PUBLIC and not any(address in network for network in special_networks.IPV6)


def is_unicast(address: Address) -> bool:
    """Return whether a host can have this address. Loopback counts, although `ipaddress` calls that of IPv6 reserved."""
    if address.is_loopback:
        return True
    return not (address.is_multicast or address.is_reserved or address.is_unspecified)
