"""Jobs in a queue of Kueue, which starts them itself: on an API server that does what the tests tell it to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.kubernetes import KubernetesEngine
from jobs.engine.kubernetes.names import QUEUE_LABEL
from tests.helpers.engines import Bench
from tests.jobs.engine.kubernetes.scripted_api import ScriptedApi, engine_of, job

pytestmark = pytest.mark.stateless

QUEUE = "/metadata/labels/kueue.x-k8s.io~1queue-name"


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    api = ScriptedApi()
    yield api
    api.close()


@pytest.fixture
def engine(api: ScriptedApi, tmp_path: Path) -> Iterator[KubernetesEngine]:
    template = tmp_path / "template.yaml"
    template.write_text(f"metadata: {{labels: {{{QUEUE_LABEL}: batch}}}}")
    with engine_of(api, tmp_path, pod_template=template) as engine:
        yield engine


def bodies(api: ScriptedApi, method: str) -> list[Any]:
    return [body for used, body in api.bodies if used == method]


def test_a_job_is_in_its_queue_only_when_it_may_start(api: ScriptedApi, engine: KubernetesEngine) -> None:
    # Given a Job, which the queue does not know yet
    api.answers[("POST", "/configmaps")] = (201, {})
    api.answers[("POST", "/jobs")] = (201, job("one", 5, requested=False))
    api.objects["jobs"] = [job("one", 5, requested=False)]
    engine.create(Bench().spec(name="one", has_inputs=False, has_outputs=False))
    created = bodies(api, "POST")[-1]
    assert QUEUE_LABEL not in created["metadata"]["labels"]
    assert created["spec"]["suspend"]

    # When it is started
    queued = job("one", 6)
    queued["metadata"]["labels"][QUEUE_LABEL] = "batch"
    queued["spec"]["suspend"] = True
    api.answers[("PATCH", "/jobs/one")] = (200, queued)
    engine.start("one")

    # I expect it to be put into its queue, and to stay suspended until the queue starts it
    (operations,) = bodies(api, "PATCH")
    assert {"op": "add", "path": QUEUE, "value": "batch"} in operations
    assert [one for one in operations if one["path"] == "/spec/suspend"] == []
    assert engine.inspect("one").phase == "starting"

    # And to be taken out again by a stop
    engine.stop("one", 0)
    assert {"op": "remove", "path": QUEUE} in bodies(api, "PATCH")[-1]
    assert {"op": "add", "path": "/spec/suspend", "value": True} in bodies(api, "PATCH")[-1]
