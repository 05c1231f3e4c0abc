"""What pods use, as a metrics server measures it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.kubernetes.names import JOB_NAME_LABEL
from jobs.engine.kubernetes.quantities import quantity
from jobs.engine.protocol import Usage
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.waiting import wait_for
from tests.jobs.engine.kubernetes.scripted_api import NAMESPACE, RUNNING, ScriptedApi, engine_of, job, pod

pytestmark = pytest.mark.stateless

METRICS = ("GET", f"/v1beta1/namespaces/{NAMESPACE}/pods")
OFTEN = EngineIntervals(cluster_usage=0.02, cluster_usage_retry=0.02)
MIB = 1024**2


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    api = ScriptedApi()
    api.objects = {"jobs": [job("one", 5)], "pods": [pod("one", 6, RUNNING)]}
    yield api
    api.close()


def measured(second: int, cpu: str, memory: str) -> tuple[int, dict[str, Any]]:
    """Return an answer of the metrics API; the helper of the pod uses more than the job."""
    containers = [
        {"name": "outputs", "usage": {"cpu": "2", "memory": "9Gi"}},
        {"name": "job", "usage": {"cpu": cpu, "memory": memory}},
    ]
    found = {
        "metadata": {"name": "one-pod", "labels": {JOB_NAME_LABEL: "one"}},
        "timestamp": f"2026-01-01T00:00:{second:02}Z",
        "window": "10s",
        "containers": containers,
    }
    return 200, {"items": [found]}


def test_measurements_are_added_up(api: ScriptedApi, tmp_path: Path) -> None:
    with engine_of(api, tmp_path, OFTEN) as engine:
        api.answers[METRICS] = measured(10, "500m", "100Mi")
        followed = engine.follow_usage("one")
        wait_for(lambda: followed.latest() == Usage(5.0, 100 * MIB), what="half a core for the first 10 s")

        # The next one, which is read several times, counts once
        api.answers[METRICS] = measured(30, "100000000n", "60Mi")
        wait_for(lambda: followed.latest() == Usage(7.0, 100 * MIB), what="a tenth of a core for 20 s more")
        asked = len(api.requests)
        wait_for(lambda: len(api.requests) > asked + 3)
        assert followed.latest() == Usage(7.0, 100 * MIB)
        followed.close()


def test_nothing_is_asked_once_no_pod_is_followed(api: ScriptedApi, tmp_path: Path) -> None:
    with engine_of(api, tmp_path, OFTEN) as engine:
        api.answers[METRICS] = measured(10, "1", "1Mi")
        first, second = engine.follow_usage("one"), engine.follow_usage("one")
        wait_for(first.latest)
        first.close()
        first.close()
        wait_for(second.latest)
        second.close()

        thread = engine._usage._thread
        if thread is not None:
            thread.join(10)
        assert engine._usage._thread is None
        assert second.latest() == Usage(10.0, MIB)


@pytest.mark.parametrize("status", [403, 404])
def test_a_cluster_that_measures_nothing_leaves_it_unknown(api: ScriptedApi, tmp_path: Path, status: int) -> None:
    with engine_of(api, tmp_path, OFTEN) as engine:
        api.answers[METRICS] = (status, {})
        followed = engine.follow_usage("one")
        wait_for(lambda: len([path for _, path, _ in api.requests if path.endswith(METRICS[1])]) > 2)

        assert followed.latest() is None
        followed.close()


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("1500m", 1.5), ("16Gi", 16 * 1024**3), ("24632452Ki", 24632452 * 1024)])
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "x", "1x", "-1", "1.5.2"])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)
