"""The rules of a network stay as they should be while its firewall is protected, and go with it."""

from typing import Any

import pytest

from jobs.engine.docker.firewall import iptables, network_firewall, nftables, programs
from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.network_firewall import NetworkFirewall
from jobs.engine.docker.firewall.network_rules import rules_name
from jobs.engine.docker.firewall.nftables import Nftables
from jobs.engine.docker.firewall.programs import FirewallError
from tests.helpers.network_namespaces import needs_namespaces, reachable, targets
from tests.jobs.engine.docker.firewall.site import (
    ALLOWED,
    BRIDGE,
    DENIED,
    DNS,
    EVERYTHING,
    GATEWAY,
    NAME,
    NAME_SERVERS,
    NETWORK_ID,
    OWNER,
    PORT,
    Program,
    Protect,
    Site,
    wait_for_reachable,
)

pytestmark = [pytest.mark.stateless, needs_namespaces]

FLUSHES = {"nft": "nft flush ruleset", "iptables": "for i in iptables ip6tables; do $i -t mangle -F; $i -t mangle -X; done"}
DAMAGES = {
    "nft": f"nft insert rule inet {NAME} allow accept",
    "iptables": f"iptables -t mangle -D INPUT -i {BRIDGE} -j {NAME}-in",
}


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


@pytest.fixture
def programs_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that were run."""
    names: list[str] = []

    def recorded(program: str, *arguments: str, **options: Any) -> str:
        names.append(program)
        return programs.run(program, *arguments, **options)

    for module in (nftables, iptables):
        monkeypatch.setattr(module, "run", recorded)
    return names


def test_no_program_is_run_while_nothing_changes(program: Program, protect: Protect, programs_run: list[str]) -> None:
    # Given a protected network
    protect()
    protect()
    if "(nf_tables)" not in programs.run("iptables", "--version", timeout=10) and program.name == "iptables":
        pytest.skip("the kernel does not say when the rules of this iptables change")
    programs_run.clear()

    # When it is looked at again, as every few seconds
    protect()

    # I expect
    assert programs_run == []


@pytest.mark.parametrize("program", [Iptables], indirect=True)
@pytest.mark.parametrize("version", ["(legacy)", "failure"])
def test_programs_whose_changes_are_not_noticed_are_asked_each_time(
    protect: Protect, programs_run: list[str], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    # Given a protected network, by an iptables whose rules the kernel keeps apart from those of nftables, as far as it says
    recorded = iptables.run

    def older(program: str, *arguments: str, **options: Any) -> str:
        if arguments != ("--version",):
            return recorded(program, *arguments, **options)
        if version == "failure":
            raise FirewallError("unknown option")
        return f"{program} v1.8.9 {version}"

    monkeypatch.setattr(iptables, "run", older)
    protect()
    protect()
    programs_run.clear()

    # When it is looked at again
    protect()

    # I expect
    assert set(programs_run) == {f"{program}-save" for program in iptables._programs()}


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


def test_no_program_is_asked_for_unused_rules_while_all_bridges_are_there(
    site: Site, program: Program, protect: Protect, firewall: NetworkFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given rules whose bridges exist: those of a network in use, and of another one, that an earlier worker has left
    protect()
    earlier = NetworkFirewall(DENIED, 10)
    earlier._programs = [program]
    asked: list[Program] = []
    names = type(program).names
    monkeypatch.setattr(type(program), "names", lambda self: asked.append(self) or names(self))
    with site.node.entered():
        site.node.run("ip link add br-ffffffffffff type bridge")
        earlier.protect("f" * 64, OWNER)

        # When unused rules are removed again and again, I expect the program to be asked once
        for _ in range(3):
            firewall.remove_unused(OWNER, [NETWORK_ID])
        assert len(asked) == 1

        # And again after a bridge is gone
        site.node.run("ip link del br-ffffffffffff")
        firewall.remove_unused(OWNER, [NETWORK_ID])
        assert len(asked) == 2
        assert names(program) == [NAME]


def test_a_program_that_fails_is_asked_again_and_keeps_no_rules_of_another(
    site: Site, program: Program, firewall: NetworkFirewall
) -> None:
    # Given rules of a network that is gone, as an earlier worker has left them, and a program that fails before
    class Broken(Nftables):
        def names(self) -> list[str]:
            raise FirewallError("not supported")

    firewall._programs = [Broken(10), program]
    earlier = NetworkFirewall(DENIED, 10)
    earlier._programs = [program]
    for digit in "ef":
        with site.node.entered():
            site.node.run(f"ip link add br-{digit * 12} type bridge")
            earlier.protect(digit * 64, OWNER)
            site.node.run(f"ip link del br-{digit * 12}")

            # I expect the rules to be removed, each time
            firewall.remove_unused(OWNER, [NETWORK_ID])
            assert program.names() == []


def test_without_a_limit_the_rules_are_removed(site: Site, protect: Protect, program: Program) -> None:
    protect()

    open_firewall = NetworkFirewall(None, 10)
    with site.node.entered():
        open_firewall.protect(NETWORK_ID, OWNER)
        assert program.names() == []

    assert open_firewall.warnings() == []
    wait_for_reachable(site, EVERYTHING)
