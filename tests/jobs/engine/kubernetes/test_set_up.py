"""How the engine is set up: credentials, what the cluster tells about itself, and refusals at the start of a worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.engine.kubernetes import ClusterSettings, KubernetesEngine
from jobs.errors import EngineRefused, EngineUnavailable
from tests.helpers.clusters import TIMEOUTS
from tests.helpers.engines import Bench
from tests.jobs.engine.kubernetes.scripted_api import NAMESPACE, ScriptedApi, engine_of

pytestmark = pytest.mark.stateless

KUBECONFIG: dict[str, Any] = {
    "clusters": [{"name": "c", "cluster": {"server": "https://c.example"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [
        {"name": "one", "context": {"cluster": "c", "user": "u"}},
        {"name": "two", "context": {"cluster": "c", "user": "u", "namespace": "batch"}},
    ],
    "current-context": "one",
}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(KUBECONFIG))
    return str(path)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    api = ScriptedApi()
    api.answers[("GET", f"/namespaces/{NAMESPACE}")] = (200, {"metadata": {"uid": "the-uid"}})
    api.answers[("POST", "/jobs")] = (201, {})
    yield api
    api.close()


def chosen(**settings: Any) -> ClusterSettings:
    return ClusterSettings(**(TIMEOUTS | settings))


# -- credentials -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "namespace"),
    [({}, "default"), ({"context": "two"}, "batch"), ({"context": "two", "namespace": "mine"}, "mine")],
)
def test_context_and_namespace_are_chosen(kubeconfig: str, settings: dict[str, str], namespace: str) -> None:
    assert KubernetesEngine(chosen(kubeconfig=kubeconfig, **settings))._client.namespace == namespace


def test_credentials_that_cannot_be_used_are_refused_by_name(
    kubeconfig: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (tmp_path / "broken").write_text("{")
    for settings, words in (
        (chosen(), "^KUBECONFIG is not set, and the worker does not run in a pod"),
        (chosen(kubeconfig=str(tmp_path / "nothing")), "^KUBECONFIG cannot be used"),
        (chosen(kubeconfig=str(tmp_path / "broken")), "^KUBECONFIG is not a configuration as for kubectl"),
        (
            chosen(kubeconfig=kubeconfig, context="three"),
            "^KUBE_CONTEXT is not the name of a context.*: three",
        ),
    ):
        with pytest.raises(EngineRefused, match=words):
            KubernetesEngine(settings)


# -- what the cluster is ---------------------------------------------------------------------------------


def test_the_cluster_is_known_by_its_namespace(api: ScriptedApi, tmp_path: Path) -> None:
    nodes = [
        {"spec": {}, "status": {"allocatable": {"cpu": "2", "memory": "8Gi"}}},
        {"spec": {}, "status": {"allocatable": {"cpu": "7500m", "memory": "4Gi"}}},
        {"spec": {"unschedulable": True}, "status": {"allocatable": {"cpu": "64", "memory": "512Gi"}}},
    ]
    api.answers[("GET", "/nodes")] = (200, {"items": nodes})

    with engine_of(api, tmp_path) as engine:
        info = engine.info()
        engine.info()

    assert (info.id, info.name, info.refusal) == ("the-uid", f"c/{NAMESPACE}", "")
    assert (info.cpus, info.memory_bytes) == (9.5, 12 * 1024**3)
    assert (info.largest_cpus, info.largest_memory_bytes) == (7.5, 8 * 1024**3)
    assert len([path for _, path, _ in api.requests if path.endswith("/nodes")]) == 1
    assert api.count("POST", "jobs") == 1  # only once is asked whether Jobs are accepted


def test_a_worker_that_may_not_list_nodes_knows_no_sizes(api: ScriptedApi, tmp_path: Path) -> None:
    api.answers[("GET", "/nodes")] = (403, {"message": "forbidden"})

    with engine_of(api, tmp_path) as engine:
        info = engine.info()

    assert (info.cpus, info.memory_bytes, info.largest_cpus, info.largest_memory_bytes) == (0, 0, None, None)


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_cluster_that_takes_no_jobs_is_refused(api: ScriptedApi, tmp_path: Path, status: int) -> None:
    api.answers[("POST", "/jobs")] = (status, {"message": "jobs.batch is forbidden"})

    with engine_of(api, tmp_path) as engine:
        assert engine.info().refusal == "the cluster refuses Jobs: jobs.batch is forbidden"
        api.answers[("POST", "/jobs")] = (201, {})
        assert engine.info().refusal == ""


def test_a_used_up_quota_is_no_refusal(api: ScriptedApi, tmp_path: Path) -> None:
    api.answers[("POST", "/jobs")] = (403, {"message": "jobs.batch x is forbidden: exceeded quota: count/jobs.batch=10"})

    with engine_of(api, tmp_path) as engine:
        assert engine.info().refusal == ""
        api.answers[("POST", "/configmaps")] = (201, {})
        with pytest.raises(EngineUnavailable, match="exceeded quota"):
            engine.create(Bench().spec(has_inputs=False, has_outputs=False))


def test_a_worker_outside_of_the_cluster_needs_an_image_for_helpers(api: ScriptedApi, tmp_path: Path) -> None:
    with engine_of(api, tmp_path, helper_image="") as engine:
        assert engine.info().refusal == "KUBE_HELPER_IMAGE is not set, and the worker does not run in the cluster: set it"


def test_an_invalid_variable_is_the_jobs_fault(api: ScriptedApi, tmp_path: Path) -> None:
    api.answers[("POST", "/configmaps")] = (409, {})
    api.answers[("POST", "/jobs")] = (422, {"message": "spec.template.spec.containers[0].env[0].name: Invalid value"})

    with engine_of(api, tmp_path) as engine, pytest.raises(EngineRefused, match="environment variable has an invalid name"):
        engine.create(Bench().spec(environment={"1=": "x"}, has_inputs=False, has_outputs=False))
