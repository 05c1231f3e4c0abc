"""The contract of every engine: networks."""

import uuid

import pytest

from jobs.errors import ContainerConflict, EngineUnavailable, NetworkMissing
from tests.helpers.engines import Bench, shell

pytestmark = pytest.mark.stateless


def test_a_network_is_found_by_its_id_and_labels(bench: Bench) -> None:
    name = f"test-{uuid.uuid4().hex}"

    network_id = bench.engine.create_network(name, bench.labels)

    assert bench.engine.find_network(network_id) == name
    assert bench.engine.find_network(network_id[:12]) is None
    assert bench.engine.list_networks(bench.labels) == {network_id: name}
    bench.engine.remove_network(network_id)
    bench.engine.remove_network(network_id)
    assert bench.engine.find_network(network_id) is None
    assert bench.engine.list_networks(bench.labels) == {}


def test_a_network_in_use_is_not_removed(bench: Bench) -> None:
    name = f"test-{uuid.uuid4().hex}"
    network_id = bench.engine.create_network(name, bench.labels)
    bench.started(shell("sleep 60"), network=name)

    with pytest.raises(ContainerConflict):
        bench.engine.remove_network(network_id)


def test_a_missing_network_says_nothing_about_the_job(bench: Bench) -> None:
    name = bench.created(network=f"test-{uuid.uuid4().hex}")

    with pytest.raises(EngineUnavailable, match="not found"):
        bench.engine.start(name)

    assert bench.engine.inspect(name).phase == "created"


def test_a_start_on_a_removed_network_is_network_missing(bench: Bench) -> None:
    network_id = bench.engine.create_network(network := f"test-{uuid.uuid4().hex}", bench.labels)
    name = bench.created(network=network)
    bench.engine.remove_network(network_id)

    with pytest.raises(NetworkMissing):
        bench.engine.start(name)
