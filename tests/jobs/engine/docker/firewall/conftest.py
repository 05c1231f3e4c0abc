"""A node in network namespaces whose jobs' network can be protected, with each program that changes the firewall."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.engine.docker.firewall import network_firewall
from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.network_firewall import NetworkFirewall
from jobs.engine.docker.firewall.nftables import Nftables
from tests.jobs.engine.docker.firewall.site import DENIED, NAME_SERVERS, NETWORK_ID, OWNER, Program, Protect, Site


@pytest.fixture(scope="package")
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
