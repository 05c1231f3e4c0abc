"""Packets for which a program needs a privilege that containers do not have: the firewall refuses these, too.

Only messages of the kernel by which neighbors find each other pass.
"""

import re
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Final

import pytest

from jobs.engine.docker.firewall.network_rules import NEIGHBOR_ADVERTISEMENT, NEIGHBOR_SOLICITATION
from tests.helpers.network_namespaces import Host, needs_namespaces, reachable
from tests.helpers.waiting import wait_for
from tests.jobs.engine.docker.firewall.site import (
    ALLOWED,
    GATEWAY,
    GATEWAY_V6,
    METADATA,
    NEIGHBOR,
    OUTSIDE,
    PORT,
    PUBLIC,
    Protect,
    Site,
)

pytestmark = [pytest.mark.stateless, needs_namespaces]

PROTOCOLS: Final = (4, 47, 112, 132, 253)  # IP in IP, GRE, VRRP, SCTP, and one for experiments
TCP, UDP, ICMPV6 = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6
ADDRESSES: Final = (GATEWAY, PUBLIC, METADATA, NEIGHBOR[0], GATEWAY_V6)
STRAY_FLAGS: Final = (0x00, 0x01, 0x10, 0x29)  # none, FIN, ACK, and FIN with PSH and URG
ROUTER_ADVERTISEMENT: Final = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)

Send = Callable[[bytes], None]  # a packet with this mark


def test_nobody_gets_them(site: Site, protect: Protect) -> None:
    with ExitStack() as cleanup:
        # Given hosts that see all packets of these kinds, and a job that sends them
        protocols = {socket.AF_INET: (*PROTOCOLS, TCP, UDP), socket.AF_INET6: (*PROTOCOLS, UDP, ICMPV6)}
        listeners = [
            cleanup.enter_context(raw_socket(host, family, protocol))
            for host in (site.node, site.neighbor, site.outside)
            for family in protocols
            for protocol in protocols[family]
        ]
        sends = list(kinds(site.job, cleanup))

        def received() -> set[int]:
            """Send a packet of each kind, and return which kinds have arrived anywhere."""
            for number, send in enumerate(sends):
                with suppress(OSError):  # the refusal of an earlier one
                    send(b"<%d>" % number)
            wait_for(lambda: reachable(site.job, ALLOWED) == ALLOWED, 20)  # by then they have arrived
            return marks(listeners)

        wait_for(lambda: received() == set(range(len(sends))), 20, "all to arrive")

        # When the network is protected
        assert protect() == []
        marks(listeners)

        # I expect none to arrive
        assert received() == set()


@pytest.mark.parametrize("kind", [NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT])
def test_the_messages_by_which_neighbors_find_each_other_arrive(site: Site, protect: Protect, kind: int) -> None:
    with raw_socket(site.node, socket.AF_INET6, ICMPV6) as node, raw_socket(site.job, socket.AF_INET6, ICMPV6) as job:
        job.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        protect()

        job.sendto(struct.pack("!BBHI", kind, 0, 0, 0) + b"<1>", (GATEWAY_V6, 0))

        wait_for(lambda: marks([node]), 20, "the message")


def raw_socket(host: Host, family: socket.AddressFamily, protocol: int) -> socket.socket:
    with host.entered():
        raw = socket.socket(family, socket.SOCK_RAW, protocol)
    raw.setblocking(False)
    return raw


def kinds(job: Host, cleanup: ExitStack) -> Iterable[Send]:
    """Yield a function for each kind of packet."""

    def sender(protocol: int, address: str, begin: bytes = b"", *, size: int = 0) -> Send:
        raw = cleanup.enter_context(raw_socket(job, socket.AF_INET6 if ":" in address else socket.AF_INET, protocol))
        if protocol == ICMPV6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        with job.entered():
            target = socket.getaddrinfo(address, 0)[0][4]
        return lambda mark: raw.sendto(begin + mark.ljust(size), target)  # type: ignore[return-value]

    yield from (sender(protocol, address) for protocol in PROTOCOLS for address in ADDRESSES)
    yield from (sender(UDP, address, struct.pack("!HHHH", PORT, PORT, 6008, 0), size=6000) for address in ADDRESSES)  # fragments
    for flags in STRAY_FLAGS:  # of a connection that does not exist
        yield sender(TCP, GATEWAY, struct.pack("!HHIIBBHHH", PORT, PORT, 1, 1, 5 << 4, flags, 1000, 0, 0))
    for source in (NEIGHBOR[0], OUTSIDE[0]):
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 253, 0, socket.inet_aton(source), socket.inet_aton(GATEWAY))
        yield sender(socket.IPPROTO_RAW, GATEWAY, header)
    yield sender(ICMPV6, "ff02::1%eth0", ROUTER_ADVERTISEMENT)


def marks(listeners: list[socket.socket]) -> set[int]:
    """Return the marks of the packets that have arrived since the last time."""
    found: set[int] = set()
    for listener in listeners:
        with suppress(BlockingIOError):
            while True:
                found.update(int(mark) for mark in re.findall(rb"<(\d+)>", listener.recv(65536)))
    return found
