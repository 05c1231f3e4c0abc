"""How the container of an earlier owner is adopted, on the fake engine."""

from collections.abc import Callable

import pytest

from jobs.engine.protocol import Observation
from jobs.errors import EngineUnavailable
from jobs.running.container_adoption import adopt
from tests.fake_engine import FakeEngine
from tests.helpers.engines import Bench, shell

LABELS = {"job": "1"}
OURS = "job-3"


@pytest.fixture
def bench(engine: FakeEngine) -> Bench:
    bench = Bench()
    bench.engine = engine
    return bench


def create(bench: Bench, name: str, **labels: str) -> str:
    return bench.created(shell("exec sleep 60"), name=name, labels=LABELS | labels)


def start(bench: Bench, name: str, **labels: str) -> str:
    return bench.started(shell("exec sleep 60"), name=name, labels=LABELS | labels)


def containers(engine: FakeEngine) -> dict[str, str]:
    """Return name and phase of each container."""
    return {container.name: container.phase for container in engine.list(LABELS)}


def after_listing(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Call `change` once the engine has listed its containers: a late owner's request comes through."""
    listing = engine.list

    def list_then_change(labels: dict[str, str]) -> list[Observation]:
        found = listing(labels)
        monkeypatch.setattr(engine, "list", listing)
        change()
        return found

    monkeypatch.setattr(engine, "list", list_then_change)


def test_a_started_container_is_renamed(engine: FakeEngine, bench: Bench) -> None:
    start(bench, "job-2")

    adopt(engine, LABELS, OURS)

    assert containers(engine) == {OURS: "running"}


def test_a_container_that_never_started_is_removed(engine: FakeEngine, bench: Bench) -> None:
    create(bench, "job-2")

    adopt(engine, LABELS, OURS)

    assert containers(engine) == {}


def test_a_late_start_is_adopted(engine: FakeEngine, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a container whose start comes through after it was listed as created
    create(bench, "job-2")
    after_listing(engine, monkeypatch, lambda: engine.start("job-2"))

    # When
    adopt(engine, LABELS, OURS)

    # I expect it to be kept
    assert containers(engine) == {OURS: "running"}


def test_of_two_containers_the_started_one_is_adopted(engine: FakeEngine, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a container that was listed as created and starts late, and a younger one that runs the job
    create(bench, "job-1", made_by="a late owner")
    start(bench, "job-2", made_by="the last owner")
    after_listing(engine, monkeypatch, lambda: engine.start("job-1"))

    # When
    adopt(engine, LABELS, OURS)

    # I expect the one that runs the job to have the name, and the other to be left for the removal of leftovers
    assert engine.inspect(OURS).labels["made_by"] == "the last owner"
    assert set(containers(engine)) == {"job-1", OURS}


def test_a_container_that_is_renamed_meanwhile_is_looked_for_again(
    engine: FakeEngine, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a container that a late owner renames after it was listed
    start(bench, "job-1")
    after_listing(engine, monkeypatch, lambda: engine.rename("job-1", "job-2"))

    # When, I expect to be told to try again
    with pytest.raises(EngineUnavailable):
        adopt(engine, LABELS, OURS)
    adopt(engine, LABELS, OURS)
    assert containers(engine) == {OURS: "running"}
