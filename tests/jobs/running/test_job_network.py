"""The network of a node's jobs and its firewall rules, on the fake engine."""

import pytest

from jobs.models import Node
from jobs.running import job_network
from jobs.running.container_labels import INSTANCE_LABEL
from tests.fake_engine import FakeEngine

pytestmark = pytest.mark.django_db(transaction=True)

INSTANCE = "orc12345678"


class WatchedEngine(FakeEngine):
    """An engine that remembers which network the node's row had when one was protected."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[str] = []

    def protect_network(self, network_id: str, owner: str) -> None:
        self.stored.append(Node.objects.get().network_id)
        super().protect_network(network_id, owner)


@pytest.fixture
def engine() -> WatchedEngine:
    return WatchedEngine()


@pytest.fixture
def node() -> Node:
    return Node.objects.create(name="node")


def test_a_network_has_its_rules_before_a_job_can_use_it(engine: WatchedEngine, node: Node) -> None:
    job_network.create(engine, node, engine.info(), INSTANCE)

    node.refresh_from_db()
    assert engine.protected == {node.network_id}
    assert engine.stored == [""]


def test_a_network_that_another_worker_has_renewed_gets_its_rules(engine: WatchedEngine, node: Node) -> None:
    # Given a network that was removed, and another that a worker without rights has made instead
    job_network.create(engine, node, engine.info(), INSTANCE)
    node.refresh_from_db()
    engine.remove_network(node.network_id)
    network_id = engine.create_network("made by another", {INSTANCE_LABEL: INSTANCE})
    Node.objects.update(network_id=network_id, network_name="made by another")

    # When this worker finds its network missing
    job_network.renew(engine, node, INSTANCE)

    # I expect it to use the new one, with rules
    assert node.network_name == "made by another"
    assert network_id in engine.protected


def test_rules_are_removed_with_a_network_that_no_node_uses(engine: WatchedEngine, node: Node) -> None:
    # Given the network of a node, and one that a crash has left
    job_network.create(engine, node, engine.info(), INSTANCE)
    node.refresh_from_db()
    left = engine.create_network("left", {INSTANCE_LABEL: INSTANCE})
    engine.protect_network(left, INSTANCE)

    # When
    job_network.remove_stale(engine, INSTANCE)

    # I expect the node's to stay
    assert set(engine.list_networks({})) == engine.protected == {node.network_id}
