"""What a job in a protected network reaches, with the kernel and the programs that change its firewall.

Hosts that are jobs here may send anything, unlike containers.
"""

import socket
import struct
from contextlib import ExitStack, suppress
from ipaddress import ip_network

import pytest

from jobs.engine.docker.firewall import network_firewall
from jobs.engine.docker.firewall.network_firewall import NetworkFirewall
from jobs.engine.docker.firewall.nftables import Nftables
from tests.helpers.network_namespaces import Host, answers_ping, needs_namespaces, reachable
from tests.helpers.waiting import wait_for
from tests.jobs.engine.docker.firewall.site import (
    ALLOWED,
    BRIDGE,
    DENIED_SERVER,
    EVERYTHING,
    GATEWAY,
    GATEWAY_V6,
    METADATA,
    NETWORK_ID,
    OUTSIDE,
    OWNER,
    PORT,
    Program,
    Protect,
    Site,
    wait_for_reachable,
)

pytestmark = [pytest.mark.stateless, needs_namespaces]

MDNS = "224.0.0.251"
TO_EVERYONE = {"10.201.0.255": 9001, "255.255.255.255": 9002, MDNS: 9003, "ff02::1%eth0": 9004}


def test_a_job_reaches_other_machines_and_name_servers_only(site: Site, protect: Protect) -> None:
    # Given a job that reaches its node, ports that this passes on, other jobs and other machines, by TCP and by UDP
    wait_for_reachable(site, EVERYTHING)

    # When its network is protected, and neighbors have to find each other again
    assert protect() == []
    for host in (site.job, site.node):
        host.run("ip -6 neigh flush all; ip neigh flush all")

    # I expect it to reach only machines in networks that are not denied, and name servers wherever they are
    wait_for_reachable(site, ALLOWED)


@pytest.mark.parametrize("program", [Nftables], indirect=True)
@pytest.mark.parametrize("address", [METADATA, GATEWAY, DENIED_SERVER[1]])
def test_nft_refuses_a_connection_at_once(site: Site, protect: Protect, address: str) -> None:
    """Programs look for the credentials of a cloud at their start, and would wait for a connection that is only dropped."""
    protect()

    with site.job.socket(address, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        with pytest.raises(ConnectionRefusedError):
            client.connect((address, PORT))


def test_an_open_connection_ends(site: Site, protect: Protect) -> None:
    # Given a connection from a job to the node
    with site.node.entered(), socket.create_server((GATEWAY, 0)) as server, site.job.socket(GATEWAY, socket.SOCK_STREAM) as job:
        job.settimeout(20)
        job.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            accepted.setblocking(False)
            job.sendall(b"before")
            wait_for(lambda: accepted.recv(100, socket.MSG_PEEK) == b"before", 20, "the first bytes")

            # When the network is protected, and the job goes on
            protect()
            job.sendall(b"after")
            wait_for_reachable(site, ALLOWED)

            # I expect nothing to arrive
            assert accepted.recv(100) == b"before"
            with pytest.raises(BlockingIOError):
                accepted.recv(100)


def test_a_job_cannot_reach_everyone_at_once(site: Site, protect: Protect) -> None:
    # Given servers of the node and of another job that receive what is sent to everyone
    with ExitStack() as cleanup:
        servers = [
            cleanup.enter_context(listener(host, interface, target))
            for host, interface in ((site.node, BRIDGE), (site.neighbor, "eth0"))
            for target in TO_EVERYONE
        ]
        jobs = {target: cleanup.enter_context(site.job.socket(target, socket.SOCK_DGRAM)) for target in TO_EVERYONE}

        def received() -> int:
            """Send to everyone, and return how many servers have received anything."""
            for target, job in jobs.items():
                job.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                with site.job.entered():
                    job.sendto(b"hello", socket.getaddrinfo(target, TO_EVERYONE[target])[0][4])
            wait_for(lambda: reachable(site.job, ALLOWED) == ALLOWED, 20)  # by then it has arrived
            return sum(map(has_received, servers))

        wait_for(lambda: received() == len(servers), 20, "all to receive it")

        # When the network is protected
        protect()

        # I expect none to receive anything
        assert received() == 0


def listener(host: Host, interface: str, target: str) -> socket.socket:
    server = host.socket(target, socket.SOCK_DGRAM)
    server.setblocking(False)
    server.bind(("", TO_EVERYONE[target]))
    if target == MDNS:
        with host.entered():
            index = socket.if_nametoindex(interface)
        server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4xi", socket.inet_aton(target), index))
    return server


def has_received(server: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return bool(server.recv(100))
    return False


def test_a_job_cannot_ping_its_node(site: Site, protect: Protect) -> None:
    wait_for(lambda: all(answers_ping(site.job, address) for address in (GATEWAY, GATEWAY_V6, METADATA, OUTSIDE[1])), 20)

    protect()

    wait_for(lambda: all(answers_ping(site.job, address) for address in OUTSIDE), 20)
    assert not any(answers_ping(site.job, address) for address in (GATEWAY, GATEWAY_V6, METADATA))


def test_rules_of_others_do_not_matter(site: Site, protect: Protect) -> None:
    # Given a firewall that accepts everything first, as dockerd may put its rules in front at its start
    protect()
    site.node.run("iptables -I FORWARD -j ACCEPT; iptables -I INPUT -j ACCEPT; iptables -P FORWARD ACCEPT")

    # I expect the same as without
    try:
        wait_for_reachable(site, ALLOWED)
    finally:
        site.node.run("iptables -D FORWARD -j ACCEPT; iptables -D INPUT -j ACCEPT")


def test_everything_may_be_denied(site: Site, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_firewall, "name_servers", lambda: ())
    firewall = NetworkFirewall([ip_network("0.0.0.0/0"), ip_network("::/0")], 10)
    firewall._programs = [program]

    with site.node.entered():
        firewall.protect(NETWORK_ID, OWNER)

    assert firewall.warnings() == []
    wait_for_reachable(site, set())
