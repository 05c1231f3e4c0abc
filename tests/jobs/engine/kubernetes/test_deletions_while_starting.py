"""A Job is deleted by others while its container starts: on an API server that says in which order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.kubernetes import KubernetesEngine
from jobs.errors import ContainerNotFound, StartLost
from jobs.interrupt import Interrupt
from tests.helpers.waiting import wait_for
from tests.jobs.engine.kubernetes.scripted_api import RUNNING, ScriptedApi, engine_of, in_thread, job, pod

pytestmark = pytest.mark.stateless


@pytest.fixture
def engine(api: ScriptedApi, tmp_path: Path) -> Iterator[KubernetesEngine]:
    with engine_of(api, tmp_path) as engine:
        yield engine


def pending(version: int, node: str = "", **metadata: Any) -> dict[str, Any]:
    found = pod("one", version, phase="Pending")
    found["spec"]["nodeName"] = node
    found["metadata"] |= metadata
    return found


def outcome(api: ScriptedApi, engine: KubernetesEngine, known: dict[str, Any], *changes: tuple[str, dict[str, Any]]) -> object:
    """Return how a wait ends during which the Job is deleted, and then its pod changes."""
    api.objects["pods"] = [known]
    thread, outcomes = in_thread(engine.wait_until_started, "one", lambda _: None, Interrupt())
    wait_for(lambda: "one" in engine._view.objects._waiting, what="the wait")
    api.send("jobs", "DELETED", job("one", 11))
    wait_for(lambda: engine._view.objects.find("one") is None, what="the deletion")
    for change, changed in changes:
        api.send("pods", change, changed)
    thread.join(10)
    assert not thread.is_alive()
    return outcomes[0]


DELETED = {"deletionTimestamp": "2026-01-01T00:00:01Z"}


@pytest.mark.parametrize("changes", [["MODIFIED", "DELETED"], ["DELETED"]], ids=["in two steps", "at once"])
def test_a_pod_without_a_node_never_runs(api: ScriptedApi, engine: KubernetesEngine, changes: list[str]) -> None:
    deletion = [(change, pending(version, **DELETED)) for version, change in enumerate(changes, start=12)]

    error = outcome(api, engine, pending(6), *deletion)

    assert isinstance(error, ContainerNotFound)
    wait_for(lambda: not engine._view.objects._pods, what="it to be forgotten")
    assert not engine._view.objects._kept


@pytest.mark.parametrize("change", [pending(12, "node"), pod("one", 12, RUNNING)])
def test_a_pod_that_gets_a_node_may_have_run(api: ScriptedApi, engine: KubernetesEngine, change: dict[str, Any]) -> None:
    assert isinstance(outcome(api, engine, pending(6), ("MODIFIED", change)), StartLost)


def test_a_pod_that_has_a_node_may_have_run(api: ScriptedApi, engine: KubernetesEngine) -> None:
    assert isinstance(outcome(api, engine, pending(6, "node")), StartLost)


def test_a_container_that_is_gone_before_the_wait_may_have_run(api: ScriptedApi, engine: KubernetesEngine) -> None:
    with pytest.raises(StartLost):
        engine.wait_until_started("two", lambda _: None, Interrupt())
