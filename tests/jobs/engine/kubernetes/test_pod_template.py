"""The operator's pod template: what it may contain, and how it is merged with the pods of jobs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.engine.kubernetes import pod_template
from jobs.engine.kubernetes.pod_template import PodTemplate
from jobs.engine.protocol import User
from jobs.errors import EngineRefused
from tests.helpers.clusters import KubernetesBench

pytestmark = pytest.mark.stateless

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "batch"}, "annotations": {"note": "x"}},
    "spec": {
        "nodeSelector": {"pool": "batch", "kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "low",
        "runtimeClassName": "gvisor",
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000},
    },
}


def loaded(path: Path, content: object, runtime: str = "") -> PodTemplate:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return pod_template.load(path, runtime)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "template.yaml"


def test_a_template_may_be_yaml_or_json(file: Path) -> None:
    assert loaded(file, yaml.safe_dump(TEMPLATE)) == loaded(file, json.dumps(TEMPLATE))


def test_the_object_of_a_cluster_is_a_template_too(file: Path) -> None:
    whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "jobs"}, "template": TEMPLATE}

    assert loaded(file, whole) == loaded(file, TEMPLATE)


def test_an_empty_template_adds_nothing(file: Path) -> None:
    assert loaded(file, "") == loaded(file, {"spec": {}}) == PodTemplate()
    assert not PodTemplate().is_set


def test_a_pod_has_what_the_template_adds_and_what_the_product_promises(file: Path) -> None:
    template = loaded(file, TEMPLATE)

    merged = template.merged({"ours": "1"}, {"restartPolicy": "Never", "nodeSelector": {"kubernetes.io/arch": "amd64"}})

    assert merged == {
        "metadata": {"labels": {"team": "batch", "ours": "1"}, "annotations": {"note": "x"}},
        "spec": TEMPLATE["spec"] | {"restartPolicy": "Never", "nodeSelector": {"pool": "batch", "kubernetes.io/arch": "amd64"}},
    }
    assert (template.architecture, template.run_as) == ("arm64", User(1000, 2000))


def test_the_runtime_class_may_come_from_job_runtime(file: Path) -> None:
    assert loaded(file, "", "kata").spec == {"runtimeClassName": "kata"}
    assert loaded(file, TEMPLATE, "gvisor").spec["runtimeClassName"] == "gvisor"
    with pytest.raises(EngineRefused, match=r"^KUBE_POD_TEMPLATE: spec\.runtimeClassName and JOB_RUNTIME are different"):
        loaded(file, TEMPLATE, "kata")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "is neither YAML nor JSON in line 1"),
        ("- a", "the file must be a map"),
        ({"specs": {}}, "specs is not a member of a pod template"),
        ({"spec": []}, "spec must be a map"),
        ({"spec": {"tolerationz": []}}, r"spec\.tolerationz cannot be set"),
        ({"spec": {"containers": []}}, r"spec\.containers cannot be set"),
        ({"spec": {"initContainers": []}}, r"spec\.initContainers cannot be set"),
        ({"spec": {"volumes": []}}, r"spec\.volumes cannot be set"),
        ({"spec": {"hostPID": True}}, r"spec\.hostPID cannot be set"),
        ({"spec": {"hostNetwork": True}}, r"spec\.hostNetwork cannot be set"),
        ({"spec": {"restartPolicy": "Always"}}, r"spec\.restartPolicy cannot be set"),
        ({"spec": {"automountServiceAccountToken": True}}, r"spec\.automountServiceAccountToken cannot be set"),
        ({"spec": {"activeDeadlineSeconds": 1}}, r"spec\.activeDeadlineSeconds cannot be set"),
        ({"spec": {"securityContext": {"sysctls": []}}}, r"spec\.securityContext\.sysctls cannot be set"),
        ({"metadata": {"name": "x"}}, r"metadata\.name cannot be set"),
        ({"metadata": {"labels": {"orchestrator.name": "x"}}}, r"the label orchestrator\.name belongs to the service"),
        ({"metadata": {"labels": {"a": 1}}}, r"metadata\.labels\.a must be text"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_name(file: Path, content: object, words: str) -> None:
    with pytest.raises(EngineRefused, match=rf"^KUBE_POD_TEMPLATE.*{words}"):
        loaded(file, content)


def test_a_template_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineRefused, match=r"^KUBE_POD_TEMPLATE cannot be read"):
        pod_template.load(tmp_path / "nothing")


@pytest.mark.kubernetes
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"tolerations": [{"keyy": "batch"}]}, r"unknown field.*keyy"),
        ({"nodeSelector": {"pool": "not a value"}}, "nodeSelector"),
    ],
)
def test_the_cluster_checks_a_template_at_the_start(
    kubernetes_bench: KubernetesBench, file: Path, spec: dict[str, Any], words: str
) -> None:
    file.write_text(yaml.safe_dump({"spec": spec}))
    engine = kubernetes_bench.another_engine(pod_template=file)

    assert kubernetes_bench.engine.info().refusal == ""
    refusal = engine.info().refusal
    assert refusal.startswith("KUBE_POD_TEMPLATE: the cluster refuses Jobs with it: ")
    assert re.search(words, refusal)


@pytest.mark.kubernetes
def test_pods_are_made_with_the_template(kubernetes_bench: KubernetesBench, file: Path) -> None:
    file.write_text(yaml.safe_dump({"metadata": {"labels": {"team": "a"}}, "spec": {"securityContext": {"runAsUser": 1234}}}))
    kubernetes_bench.engine.close()
    kubernetes_bench.engine = kubernetes_bench.another_engine(pod_template=file)

    name = kubernetes_bench.ended(("sh", "-c", "id -u > /dev/termination-log"), has_inputs=False, has_outputs=False)

    pod = kubernetes_bench.namespace.pod_of(name)
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "1234\n"
