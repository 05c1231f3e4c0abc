"""A real cluster to test against, and what tests need of it beyond the engine: a namespace, the role, an administrator."""

import base64
import copy
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient
from kubernetes.config import new_client_from_config_dict

from jobs.engine.kubernetes import ClusterSettings, KubernetesEngine
from jobs.engine.protocol import RunSpec
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers import built_images
from tests.helpers.engines import TEST_LABEL, Bench

TIMEOUTS: dict[str, Any] = {"pull_timeout": 1800.0, "transfer_timeout": 3600.0}  # of an engine's settings

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("role.yaml", "nodes-role.yaml")


class Admin:
    """An administrator's access to the cluster, as JSON."""

    def __init__(self, kubeconfig: str) -> None:
        self.directory = Path(kubeconfig).parent  # of the test cluster
        self.described = verified(self.directory, yaml.safe_load(Path(kubeconfig).read_text()))
        self._api: ApiClient = new_client_from_config_dict(self.described)
        self._api.rest_client.pool_manager.connection_pool_kw["maxsize"] = 16

    @property
    def server(self) -> str:
        return str(self._api.configuration.host)

    def __call__(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        """Return the answer to a request; raise `AssertionError` for a failed one, apart from 404, which is None."""
        headers = {"Content-Type": content_type}
        self._api.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self.server}{path}"
        data = None if body is None else json.dumps(body)
        answer = self._api.rest_client.pool_manager.request(method, url, headers=headers, body=data)
        if answer.status == 404:
            return None
        assert answer.status < 400, answer.data
        return json.loads(answer.data)

    def watch(self, path: str, version: str, seconds: int) -> Iterator[dict[str, Any]]:
        """Yield the changes of objects since a version of the list, as they come, for a number of seconds."""
        headers: dict[str, str] = {}
        self._api.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self.server}{path}?watch=1&resourceVersion={version}&timeoutSeconds={seconds}"
        answer = self._api.rest_client.pool_manager.request("GET", url, headers=headers, preload_content=False)
        try:
            yield from map(json.loads, answer)
        finally:
            answer.close()

    def close(self) -> None:
        self._api.rest_client.pool_manager.clear()


def verified(directory: Path, kubeconfig: dict[str, Any]) -> dict[str, Any]:
    """Return a kubeconfig with which the test cluster's certificate is verified: that of its authority is beside it."""
    authority = base64.b64encode((directory / "certs" / "api" / "apiserver.crt").read_bytes()).decode()
    for one in kubeconfig["clusters"]:
        one["cluster"] = {"server": one["cluster"]["server"], "certificate-authority-data": authority}
    return kubeconfig


@dataclass(frozen=True)
class Namespace:
    """A namespace of its own for a run of tests, and a kubeconfig that may do there what a worker may."""

    admin: Admin
    name: str
    kubeconfig: Path

    def path(self, kind: str, name: str = "", group: str = "/api/v1") -> str:
        """Return the path of an object, or of all of its kind."""
        return "/".join(filter(None, (group, "namespaces", self.name, kind, name)))

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.admin("GET", self.path("jobs", group="/apis/batch/v1"))["items"])

    def pods(self) -> list[dict[str, Any]]:
        return list(self.admin("GET", self.path("pods"))["items"])

    def pod_of(self, name: str) -> dict[str, Any]:
        """Return the pod of a Job, by the Job's own name."""
        (pod,) = [pod for pod in self.pods() if pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == name]
        return pod


def manifests() -> Iterator[dict[str, Any]]:
    """Yield the objects of the role that is shipped."""
    for file in ROLES:
        yield from yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / file).read_text())


def make_namespace(admin: Admin, directory: Path) -> Namespace:
    """Make a namespace with exactly the role of the manifests, and an account that has no other."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    admin("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    for found in manifests():
        kind = found["kind"]
        found["metadata"].pop("namespace", None)
        for subject in found.get("subjects", ()):
            subject["namespace"] = name
        if not kind.startswith("Cluster"):
            found["metadata"]["namespace"] = name
        else:
            found["metadata"]["name"] += f"-{name}"
        if kind == "ClusterRoleBinding":
            found["roleRef"]["name"] += f"-{name}"
        group = "/api/v1" if kind == "ServiceAccount" else "/apis/rbac.authorization.k8s.io/v1"
        where = group if kind.startswith("Cluster") else f"{group}/namespaces/{name}"
        admin("POST", f"{where}/{kind.lower()}s", found)
    token = admin("POST", f"/api/v1/namespaces/{name}/serviceaccounts/orchestrator-worker/token", {"spec": {}})["status"]["token"]
    kubeconfig = directory / "kubeconfig"
    described = copy.deepcopy(admin.described)
    context = next(one for one in described["contexts"] if one["name"] == described["current-context"])["context"]
    described["users"] = [{"name": "worker", "user": {"token": token}}]
    described["contexts"] = [{"name": "worker", "context": {"cluster": context["cluster"], "user": "worker", "namespace": name}}]
    described["current-context"] = "worker"
    kubeconfig.write_text(yaml.safe_dump(described))
    return Namespace(admin, name, kubeconfig)


def remove_namespace(namespace: Namespace) -> None:
    """Remove a namespace and all that is in it."""
    admin = namespace.admin
    admin("DELETE", f"/api/v1/namespaces/{namespace.name}")
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    for kind in ("clusterroles", "clusterrolebindings"):
        admin("DELETE", f"{rbac}/{kind}/orchestrator-nodes-{namespace.name}")


class KubernetesBench(Bench):
    """A test bench in a namespace of a cluster, with the rights of a worker."""

    def __init__(self, namespace: Namespace, host: str) -> None:
        super().__init__()
        self.namespace = namespace
        self.engine: KubernetesEngine = self.another_engine()
        self._host = host
        self._made: list[str] = []

    def spec(self, command: tuple[str, ...] | None = ("true",), **values: Any) -> RunSpec:
        return super().spec(command, **({"cpu_millis": 100} | values))  # several fit on the node at once

    def another_engine(self, intervals: EngineIntervals = EngineIntervals(), **settings: Any) -> KubernetesEngine:
        """Return an engine as another worker process would have it."""
        defaults = {"kubeconfig": str(self.namespace.kubeconfig), "helper_image": self.image, **TIMEOUTS}
        return KubernetesEngine(ClusterSettings(**(defaults | settings)), intervals)

    def clean(self) -> None:
        super().clean()
        self.engine.close()
        for reference in self._made:
            built_images.remove(self._host, reference)

    def image_with(self, *, user: str = "", command: tuple[str, ...] | None = ("/bin/sh",)) -> str:
        reference = f"{TEST_LABEL}/{uuid.uuid4().hex}:latest"
        changes = [f"USER {user}"] if user else []
        built_images.import_busybox(self._host, reference, changes, command=command)
        self._made.append(reference)
        load_image(self._host, self.namespace.admin, reference)
        return reference

    def image_for(self, architecture: str) -> str:
        reference = f"{TEST_LABEL}/{uuid.uuid4().hex}:latest"
        built_images.load(self._host, reference, built_images.busybox_file_system(), architecture)
        self._made.append(reference)
        load_image(self._host, self.namespace.admin, reference)
        return reference


def load_image(host: str, admin: Admin, reference: str) -> None:
    """Copy an image from a Docker engine to the node of the cluster."""
    socket = admin.directory / "containerd" / "sock"
    save = subprocess.Popen(["docker", "-H", host, "save", reference], stdout=subprocess.PIPE)
    load = ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", "--all-platforms", "-"]
    subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
    assert save.stdout is not None
    save.stdout.close()
    assert save.wait() == 0


@pytest.fixture(scope="session")
def cluster_admin() -> Iterator[Admin]:
    """The cluster under test; `.ci/run` and `bin/test` set `KUBECONFIG`."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("KUBECONFIG is not set")
    admin = Admin(kubeconfig)
    yield admin
    admin.close()


@pytest.fixture(scope="session")
def cluster_namespace(cluster_admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    namespace = make_namespace(cluster_admin, tmp_path_factory.mktemp("cluster"))
    yield namespace
    remove_namespace(namespace)


@pytest.fixture
def kubernetes_bench(cluster_namespace: Namespace, docker_host: str) -> Iterator[KubernetesBench]:
    bench = KubernetesBench(cluster_namespace, docker_host)
    yield bench
    bench.clean()
