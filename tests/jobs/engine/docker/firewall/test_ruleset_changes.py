"""Noticing changes of nftables."""

import socket
from collections.abc import Iterator

import pytest

from jobs.engine.docker.firewall import ruleset_changes
from jobs.engine.docker.firewall.ruleset_changes import RulesetChanges
from tests.helpers.network_namespaces import Host, needs_namespaces

pytestmark = [pytest.mark.stateless, needs_namespaces]

CHANGE = "iptables-nft -N given && iptables-nft -X given"


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.remove()


@pytest.fixture
def changes(host: Host) -> RulesetChanges:
    """The changes on a host, which are counted from now on."""
    changes = RulesetChanges()
    with host.entered():
        changes.count()
    return changes


def test_the_count_grows_with_each_change_only(host: Host, changes: RulesetChanges) -> None:
    first = changes.count()
    assert changes.count() == first

    host.run(CHANGE)

    assert changes.count() > first
    assert changes.count() == changes.count()


def test_lost_messages_count_as_a_change(host: Host, changes: RulesetChanges) -> None:
    # Given more messages than fit
    assert changes._listener is not None
    changes._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    host.run(CHANGE + "; for i in 1 2 3 4 5; do " + CHANGE + "; done")

    # When they are counted
    with host.entered():
        first = changes.count()

    # I expect later ones to be noticed as before
    with host.entered():
        assert changes.count() == first
    host.run(CHANGE)
    with host.entered():
        assert changes.count() > first


def test_what_cannot_be_noticed_may_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruleset_changes, "_listen", lambda: None)
    changes = RulesetChanges()

    assert changes.count() < changes.count() < changes.count()


def test_a_listener_is_closed_with_its_changes() -> None:
    changes = RulesetChanges()
    changes.count()
    listener = changes._listener
    assert listener is not None

    del changes

    assert listener.fileno() == -1
