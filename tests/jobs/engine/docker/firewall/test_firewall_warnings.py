"""What a node says if it cannot protect its jobs' network."""

import logging

import pytest

from jobs.engine.docker.firewall import network_firewall
from jobs.engine.docker.firewall.network_firewall import NO_PROGRAM, NOT_ALLOWED, NOT_HERE, REFUSED, NetworkFirewall
from jobs.engine.docker.firewall.nftables import Nftables
from jobs.engine.docker.firewall.programs import FirewallError
from tests.helpers.network_namespaces import needs_namespaces
from tests.jobs.engine.docker.firewall.site import NETWORK_ID, OWNER, Program, Protect, Site

pytestmark = [pytest.mark.stateless, needs_namespaces, pytest.mark.parametrize("program", [Nftables], indirect=True)]


def test_an_engine_elsewhere(protect: Protect, firewall: NetworkFirewall, site: Site, program: Program) -> None:
    with site.outside.entered():  # where the bridge does not exist
        firewall.protect(NETWORK_ID, OWNER)
        assert program.names() == []

    assert firewall.warnings() == [NOT_HERE]
    assert protect() == []


def test_a_worker_without_the_right(protect: Protect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_firewall, "may_change_firewall", lambda: False)
    assert protect() == [NOT_ALLOWED]


def test_no_program(protect: Protect, firewall: NetworkFirewall) -> None:
    firewall._programs = []
    assert protect() == [NO_PROGRAM]


def test_a_program_that_fails(
    protect: Protect, program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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


def test_rules_that_are_not_there(protect: Protect, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "install", lambda _: None)
    assert protect() == [REFUSED]
