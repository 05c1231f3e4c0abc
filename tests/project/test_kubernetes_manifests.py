"""The manifests in deploy/kubernetes/ fit the service, and an API server accepts them."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from honcho.environ import parse_procfile

from jobs.engine.kubernetes.files import mover_client
from jobs.engine.kubernetes.files.pod_parts import Helper, pod_parts
from jobs.engine.kubernetes.manifest import job_manifest
from jobs.engine.kubernetes.names import NETWORK_LABEL
from jobs.engine.kubernetes.pod_template import PodTemplate
from tests.helpers.clusters import Admin
from tests.helpers.engines import Bench
from tests.helpers.kustomization import Manifest, collection, containers, in_namespaces, rendered, rendered_by_kustomize

pytestmark = pytest.mark.stateless

ROOT: Final = Path(__file__).resolve().parents[2]
DIRECTORY: Final = ROOT / "deploy" / "kubernetes"
PROCFILE: Final[dict[str, str]] = parse_procfile((ROOT / "Procfile").read_text()).processes
NEEDED: Final = ("Namespace", "ServiceAccount")  # by the other objects; they are really made


@pytest.fixture(scope="module")
def objects() -> list[Manifest]:
    return rendered(DIRECTORY)


def of_kind(objects: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Return the objects of these kinds by the process that they are about."""
    return {one["metadata"]["name"].removeprefix("orchestrator-"): one for one in objects if one["kind"] in kinds}


def container(workload: Manifest, name: str) -> Manifest:
    found: Manifest = next(one for one in workload["spec"]["template"]["spec"]["containers"] if one["name"] == name)
    return found


def test_kustomize_renders_what_the_tests_render(objects: list[Manifest]) -> None:
    def texts(some: list[Manifest]) -> list[str]:
        return sorted(json.dumps(each, sort_keys=True) for each in some)

    try:
        expected = rendered_by_kustomize(DIRECTORY)
    except FileNotFoundError:
        pytest.skip("kubectl is not installed")
    assert texts(objects) == texts(expected)


def test_every_process_of_the_procfile_runs(objects: list[Manifest]) -> None:
    commands = {
        name: " ".join(container(one, "process")["command"]) for name, one in of_kind(objects, "Deployment", "Job").items()
    }

    assert commands == {name: command for name, command in PROCFILE.items() if name != "metrics"}


def test_every_pod_that_keeps_running_has_the_metrics_of_its_processes(objects: list[Manifest]) -> None:
    for name, deployment in of_kind(objects, "Deployment").items():
        metrics = container(deployment, "metrics")

        assert " ".join(metrics["command"]) == PROCFILE["metrics"], name
        assert {"name": "state", "mountPath": "/var/lib/orchestrator"} in metrics["volumeMounts"], name
        assert {"name": "state", "mountPath": "/var/lib/orchestrator"} in container(deployment, "process")["volumeMounts"], name


def test_no_process_may_more_than_it_must(objects: list[Manifest]) -> None:
    for one in containers(objects):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, one["name"]
        assert one["resources"]["limits"]["memory"], one["name"]


def test_only_the_worker_has_a_token_for_the_cluster(objects: list[Manifest]) -> None:
    tokens = {
        name: one["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for name, one in of_kind(objects, "Deployment", "Job").items()
    }

    assert {name for name, has_one in tokens.items() if has_one} == {"worker"}


def test_every_process_that_keeps_running_may_lose_one_pod_at_a_time(objects: list[Manifest]) -> None:
    deployments, budgets = of_kind(objects, "Deployment"), of_kind(objects, "PodDisruptionBudget")

    assert set(budgets) == set(deployments)
    for name, budget in budgets.items():
        assert budget["spec"]["selector"] == deployments[name]["spec"]["selector"], name
        assert budget["spec"]["maxUnavailable"] < deployments[name]["spec"]["replicas"], name


def test_a_pod_is_given_longer_than_its_process_takes_to_end(objects: list[Manifest]) -> None:
    for name, deployment in of_kind(objects, "Deployment").items():
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 10, name  # SHUTDOWN_GRACE


def test_only_workers_may_connect_to_jobs_and_only_where_their_helpers_listen(objects: list[Manifest]) -> None:
    [rule] = of_kind(objects, "NetworkPolicy")["jobs"]["spec"]["ingress"]
    worker = of_kind(objects, "Deployment")["worker"]["spec"]["template"]["metadata"]["labels"]

    assert [one["podSelector"]["matchLabels"] for one in rule["from"]] == [worker]
    assert rule["ports"] == [{"port": mover_client.PORT}]


def test_only_jobs_with_a_network_may_connect_to_anything(objects: list[Manifest]) -> None:
    policies = {
        name: one["spec"] for name, one in of_kind(objects, "NetworkPolicy").items() if "Egress" in one["spec"]["policyTypes"]
    }

    assert policies["jobs"]["podSelector"] == {}
    assert "egress" not in policies["jobs"]
    assert policies["jobs-with-a-network"]["podSelector"] == {"matchLabels": {NETWORK_LABEL: "bridge"}}
    assert set(policies) == {"jobs", "jobs-with-a-network"}


def test_jobs_reach_no_address_that_is_denied_on_docker(objects: list[Manifest]) -> None:
    rules = of_kind(objects, "NetworkPolicy")["jobs-with-a-network"]["spec"]["egress"]
    denied = {network for rule in rules for one in rule["to"] if "ipBlock" in one for network in one["ipBlock"]["except"]}

    assert denied >= {"169.254.0.0/16", "fe80::/10"}


# -- on a cluster --------------------------------------------------------------------------------
Check = Callable[[Manifest], Any]


@pytest.fixture
def check(cluster_admin: Admin, objects: list[Manifest]) -> Iterator[Check]:
    """A call with which the API server checks an object, in namespaces like those of the manifests. Nothing is created."""
    suffix = f"-{uuid.uuid4().hex[:8]}"
    needed = [in_namespaces(each, suffix) for each in objects if each["kind"] in NEEDED]

    def checked(manifest: Manifest) -> Any:
        body = in_namespaces(manifest, suffix)
        return cluster_admin("POST", f"{collection(body)}?dryRun=All&fieldValidation=Strict", body)

    try:
        for each in needed:
            cluster_admin("POST", collection(each), each)
        yield checked
    finally:
        for each in needed:
            if each["kind"] == "Namespace":
                cluster_admin("DELETE", f"{collection(each)}/{each['metadata']['name']}")


@pytest.mark.kubernetes
def test_the_cluster_accepts_every_object(check: Check, objects: list[Manifest]) -> None:
    for each in objects:
        if each["kind"] not in NEEDED:
            assert check(each)["metadata"]["name"] == each["metadata"]["name"]


@pytest.mark.kubernetes
def test_the_cluster_says_what_it_does_not_know(check: Check, objects: list[Manifest]) -> None:
    # Given an object with a misspelt field
    web = json.loads(json.dumps(of_kind(objects, "Deployment")["web"]))
    web["spec"]["replica"] = 2

    # I expect that such a mistake in a manifest would fail the test above
    with pytest.raises(AssertionError, match="unknown field"):
        check(web)


@pytest.mark.kubernetes
def test_the_namespace_admits_every_pod_of_the_service(check: Check, objects: list[Manifest]) -> None:
    for name, workload in of_kind(objects, "Deployment", "Job").items():
        pod = pod_of(workload["spec"]["template"], name, workload["metadata"]["namespace"])

        assert check(pod)["spec"]["containers"], name


@pytest.mark.kubernetes
def test_the_namespace_of_jobs_admits_their_pods(check: Check) -> None:
    # Given the pod of a job with inputs and outputs
    pod = pod_of(template_of_job(), "job", "orchestrator-jobs")

    assert len(check(pod)["spec"]["containers"]) == 2


@pytest.mark.kubernetes
def test_the_namespace_of_jobs_admits_no_privileged_pod(check: Check) -> None:
    # Given a pod that may do anything to its node
    pod = pod_of(template_of_job(), "job", "orchestrator-jobs")
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}

    # I expect the cluster to keep it out, whatever asks for it
    with pytest.raises(AssertionError, match="privileged=true"):
        check(pod)


def template_of_job() -> Manifest:
    """Return the template of the pod of a job with inputs and outputs."""
    spec = Bench().spec(disk_limit_bytes=1024**3, has_inputs=True, has_outputs=True)
    parts = pod_parts(spec, Helper("orchestrator", "amd64"), "tokens", "IfNotPresent")
    template: Manifest = job_manifest.job(spec, PodTemplate(), parts, architecture="amd64", spare_seconds=60)["spec"]["template"]
    return template


def pod_of(template: Manifest, name: str, namespace: str) -> Manifest:
    metadata = template["metadata"] | {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
