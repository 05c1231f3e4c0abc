"""Which program installs the rules of a network, if both could or one fails."""

import pytest

from jobs.engine.docker.firewall import iptables
from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.network_firewall import NetworkFirewall
from jobs.engine.docker.firewall.network_rules import NetworkRules
from jobs.engine.docker.firewall.nftables import Nftables
from jobs.engine.docker.firewall.programs import FirewallError
from tests.helpers.network_namespaces import needs_namespaces
from tests.jobs.engine.docker.firewall.site import (
    ALLOWED,
    DENIED,
    NAME,
    NETWORK_ID,
    OWNER,
    Program,
    Protect,
    Site,
    wait_for_reachable,
)

pytestmark = [pytest.mark.stateless, needs_namespaces]


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


@pytest.mark.parametrize("program", [Iptables], indirect=True)
def test_a_kernel_that_gets_ipv6_later(site: Site, protect: Protect, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(iptables, "_programs", lambda: ["iptables"])
        protect()

    assert protect() == []

    wait_for_reachable(site, ALLOWED)
