"""The firewall rules of a network, with the kernel and the programs that change it.

Network namespaces stand for a node, its jobs and other machines. Hosts that are jobs here may send anything, unlike containers.
"""

import logging
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from jobs.engine.docker.firewall import iptables, network_firewall
from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.network_firewall import NO_PROGRAM, NOT_ALLOWED, NOT_HERE, REFUSED, NetworkFirewall
from jobs.engine.docker.firewall.network_rules import NetworkRules, rules_name
from jobs.engine.docker.firewall.nftables import Nftables
from jobs.engine.docker.firewall.programs import FirewallError
from tests.helpers.network_namespaces import Host, Target, answers_ping, needs_namespaces, reachable, targets
from tests.helpers.waiting import wait_for
from tests.jobs.engine.docker.firewall.site import (
    BRIDGE,
    DENIED,
    DENIED_SERVER,
    DNS,
    GATEWAY,
    GATEWAY_V6,
    METADATA,
    NAME,
    NAME_SERVERS,
    NETWORK_ID,
    OUTSIDE,
    OWNER,
    PORT,
    PUBLIC,
    PUBLISHED,
    REFUSED_ADDRESSES,
    Site,
)

pytestmark = [pytest.mark.stateless, needs_namespaces]

Program = Nftables | Iptables
Protect = Callable[[], list[str]]

MDNS = "224.0.0.251"
TO_EVERYONE = {"10.201.0.255": 9001, "255.255.255.255": 9002, MDNS: 9003, "ff02::1%eth0": 9004}

FLUSHES = {"nft": "nft flush ruleset", "iptables": "for i in iptables ip6tables; do $i -t mangle -F; $i -t mangle -X; done"}
DAMAGES = {
    "nft": f"nft insert rule inet {NAME} allow accept",
    "iptables": f"iptables -t mangle -D INPUT -i {BRIDGE} -j {NAME}-in",
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if not Path("/proc/sys/net/bridge").exists() or not shutil.which("iptables"):
        pytest.skip("needs a kernel that filters bridged traffic, and iptables")
    with ExitStack() as cleanup:
        yield Site(cleanup)


@pytest.fixture(params=[Nftables, Iptables])
def program(request: pytest.FixtureRequest, site: Site) -> Iterator[Program]:
    program: Program = request.param(10)
    if not program.is_installed:
        pytest.skip(f"{program.name} is not installed")
    yield program
    with site.node.entered():
        for name in program.names():
            program.remove(name)


@pytest.fixture
def firewall(program: Program, monkeypatch: pytest.MonkeyPatch) -> NetworkFirewall:
    """A firewall that uses one of the programs."""
    monkeypatch.setattr(network_firewall, "name_servers", lambda: NAME_SERVERS)
    firewall = NetworkFirewall(DENIED, 10)
    firewall._programs = [program]
    return firewall


@pytest.fixture
def protect(site: Site, firewall: NetworkFirewall) -> Protect:
    """Protect the network of the jobs, and return the warnings."""

    def protect() -> list[str]:
        with site.node.entered():
            firewall.protect(NETWORK_ID, OWNER)
        return firewall.warnings()

    return protect


ALLOWED = targets(OUTSIDE, PORT) | targets(OUTSIDE, DNS) | targets(map(str, NAME_SERVERS), DNS)
EVERYTHING = ALLOWED | targets(REFUSED_ADDRESSES, PORT) | targets([PUBLIC], PUBLISHED) | targets([METADATA, GATEWAY_V6], DNS)


def wait_for_reachable(site: Site, wanted: set[Target]) -> None:
    """Wait until these are all that a job reaches."""
    wait_for(lambda: reachable(site.job, EVERYTHING) == wanted, 20, f"{wanted} to be all that is reachable")


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


def installed(site: Site, program: Program) -> str:
    with site.node.entered():
        return program.installed(NAME)


@pytest.mark.parametrize("how", [FLUSHES, DAMAGES], ids=["flushed", "changed"])
def test_rules_are_restored(
    site: Site, protect: Protect, program: Program, how: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    # Given a protected network
    protect()
    protect()
    assert "installed again" not in caplog.text
    before = installed(site, program)

    # When the rules are removed or changed
    site.node.run(how[program.name])
    if how is FLUSHES:
        site.publish()
    assert reachable(site.job, targets([GATEWAY], PORT))

    # I expect them to be back after the next look, as they were
    assert protect() == []
    wait_for_reachable(site, ALLOWED)
    assert installed(site, program) == before
    assert caplog.text.count("missing or changed, and are installed again") == 1


def test_rules_of_others_do_not_matter(site: Site, protect: Protect) -> None:
    # Given a firewall that accepts everything first, as dockerd may put its rules in front at its start
    protect()
    site.node.run("iptables -I FORWARD -j ACCEPT; iptables -I INPUT -j ACCEPT; iptables -P FORWARD ACCEPT")

    # I expect the same as without
    try:
        wait_for_reachable(site, ALLOWED)
    finally:
        site.node.run("iptables -D FORWARD -j ACCEPT; iptables -D INPUT -j ACCEPT")


@pytest.mark.parametrize("program", [Nftables], indirect=True)
def test_nothing_is_asked_while_nothing_changes(protect: Protect, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a protected network, by nft
    protect()
    protect()
    asked: list[str] = []
    monkeypatch.setattr(Nftables, "installed", lambda _, name: asked.append(name))

    # When it is looked at again
    protect()

    # I expect no program to be run
    assert asked == []


def test_changed_name_servers(site: Site, protect: Protect, monkeypatch: pytest.MonkeyPatch) -> None:
    protect()

    monkeypatch.setattr(network_firewall, "name_servers", lambda: NAME_SERVERS[:1])
    protect()

    others = targets(map(str, NAME_SERVERS[1:]), DNS)
    wait_for_reachable(site, ALLOWED - others)


def test_rules_go_with_their_network(site: Site, program: Program, protect: Protect, firewall: NetworkFirewall) -> None:
    # Given rules of two installations, whose bridges exist, and of a network that is gone
    protect()
    gone = rules_name(OWNER, "f" * 12)
    with site.node.entered():
        site.node.run("ip link add br-222222222222 type bridge")
        firewall.protect("2" * 64, "orc99999999")
        site.node.run("ip link add br-ffffffffffff type bridge")
        firewall.protect("f" * 64, OWNER)
        site.node.run("ip link del br-ffffffffffff; ip link del br-222222222222")
        assert gone in program.names()

        # When one of them removes what it does not need
        firewall.remove_unused(OWNER, [])

        # I expect the rules of the other one, and of the network that is there, to stay
        assert sorted(program.names()) == sorted([NAME, rules_name("orc99999999", "2" * 12)])

        # And those of a network that is missing while its engine starts, too
        firewall.remove_unused("orc99999999", ["2" * 64])
        assert len(program.names()) == 2


def test_without_a_limit_the_rules_are_removed(site: Site, protect: Protect, program: Program) -> None:
    protect()

    open_firewall = NetworkFirewall(None, 10)
    with site.node.entered():
        open_firewall.protect(NETWORK_ID, OWNER)
        assert program.names() == []

    assert open_firewall.warnings() == []
    wait_for_reachable(site, EVERYTHING)


def test_a_better_program_takes_over(site: Site, protect: Protect, program: Program) -> None:
    # Given rules that were installed by one program, and a firewall that can use both
    protect()
    firewall = NetworkFirewall(DENIED, 10)

    # When it protects the same network
    with site.node.entered():
        firewall.protect(NETWORK_ID, OWNER)

        # I expect the rules to be those of nft only
        assert (Nftables(10).names(), Iptables(10).names()) == ([NAME], [])
        Nftables(10).remove(NAME)


@pytest.mark.parametrize("program", [Iptables], indirect=True)
def test_a_kernel_that_gets_ipv6_later(site: Site, protect: Protect, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(iptables, "_programs", lambda: ["iptables"])
        protect()

    assert protect() == []

    wait_for_reachable(site, ALLOWED)


@pytest.mark.parametrize("program", [Iptables], indirect=True)
def test_iptables_helps_out(protect: Protect, firewall: NetworkFirewall, program: Program, site: Site) -> None:
    # Given a kernel that does not take the rules of nft
    class OldKernel(Nftables):
        def install(self, rules: NetworkRules) -> None:
            raise FirewallError("not supported")

    firewall._programs = [OldKernel(10), program]

    # When the network is protected, I expect the rules to be those of iptables, without a warning
    assert protect() == []
    with site.node.entered():
        assert (Nftables(10).names(), program.names()) == ([], [NAME])


@pytest.mark.parametrize("program", [Nftables], indirect=True)
class TestWarnings:
    """What a node says if it cannot protect its jobs' network."""

    def test_an_engine_elsewhere(self, protect: Protect, firewall: NetworkFirewall, site: Site, program: Program) -> None:
        with site.outside.entered():  # where the bridge does not exist
            firewall.protect(NETWORK_ID, OWNER)
            assert program.names() == []

        assert firewall.warnings() == [NOT_HERE]
        assert protect() == []

    def test_a_worker_without_the_right(self, protect: Protect, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(network_firewall, "may_change_firewall", lambda: False)
        assert protect() == [NOT_ALLOWED]

    def test_no_program(self, protect: Protect, firewall: NetworkFirewall) -> None:
        firewall._programs = []
        assert protect() == [NO_PROGRAM]

    def test_a_program_that_fails(
        self, protect: Protect, program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given a program that refuses the rules
        def fail(*_: object) -> None:
            raise FirewallError("no memory")

        with monkeypatch.context() as patch:
            patch.setattr(program, "install", fail)

            # I expect a warning that does not repeat its words, and one line in the log that does
            assert (protect(), protect()) == ([REFUSED], [REFUSED])
        assert [record.levelno for record in caplog.records if "no memory" in record.getMessage()] == [logging.WARNING]

        # And rules when it works again
        assert protect() == []

    def test_rules_that_are_not_there(self, protect: Protect, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(program, "install", lambda _: None)
        assert protect() == [REFUSED]


def test_everything_may_be_denied(site: Site, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_firewall, "name_servers", lambda: ())
    firewall = NetworkFirewall([ip_network("0.0.0.0/0"), ip_network("::/0")], 10)
    firewall._programs = [program]

    with site.node.entered():
        firewall.protect(NETWORK_ID, OWNER)

    assert firewall.warnings() == []
    wait_for_reachable(site, set())
