"""The pods of deploy/kubernetes/ on a real cluster, with the image of deploy/Dockerfile, and the databases of the tests."""

import base64
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import requests
import yaml

from tests.helpers import service_image
from tests.helpers.clusters import Admin, load_image
from tests.helpers.kustomization import Manifest, collection, containers, in_namespaces, rendered
from tests.helpers.service_processes import Service
from tests.helpers.tcp_proxy import TcpProxy
from tests.helpers.waiting import wait_for

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.long,  # the image alone takes minutes
    pytest.mark.packages,
    pytest.mark.production,
    pytest.mark.timeout(900),
]

DIRECTORY: Final = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
API_KEY: Final = "a key of the test"
KUBECONFIG: Final = "/run/cluster/kubeconfig"
START_SECONDS: Final = 240


@pytest.fixture
def image(cluster_admin: Admin, docker_host: str) -> Iterator[str]:
    """The image of the service, on the cluster's node."""
    with service_image.built(docker_host) as image:
        load_image(docker_host, cluster_admin, image)
        yield image


@pytest.fixture
def proxies(cluster_admin: Admin, service: Service) -> Iterator[dict[str, str]]:
    """The addresses at which pods reach what listens on this machine's loopback: an empty database, Redis, the API server."""
    node = cluster_admin("GET", "/api/v1/nodes")["items"][0]
    [address] = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    with psycopg.connect(service.database_url, autocommit=True) as connection:  # the pods are to migrate it
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    with ExitStack() as cleanup:

        def proxied(url: str) -> str:
            return cleanup.enter_context(TcpProxy.to(url, address)).through(url)

        yield {
            "DATABASE_URL": proxied(service.database_url),
            "REDIS_URL": proxied(service.redis_url),
            "server": proxied(cluster_admin.server),
        }


@pytest.fixture
def namespace(cluster_admin: Admin, service: Service, proxies: dict[str, str], image: str) -> Iterator[str]:
    """The namespace of an installation that was applied like the manifests, with one pod of each process."""
    suffix = f"-{uuid.uuid4().hex[:8]}"
    name = f"orchestrator{suffix}"
    objects = [in_namespaces(each, suffix) for each in rendered(DIRECTORY)]
    adapt(objects, image, suffix)
    first = [each for each in objects if each["kind"] in ("Namespace", "ServiceAccount")]
    try:
        for each in first:
            cluster_admin("POST", collection(each), each)
        for each in (*secrets(service, cluster_admin, proxies, name), *(each for each in objects if each not in first)):
            cluster_admin("POST", collection(each), each)
        yield name
    finally:
        for each in objects:
            if "namespace" not in each["metadata"]:
                cluster_admin("DELETE", f"{collection(each)}/{each['metadata']['name']}")


def secrets(service: Service, admin: Admin, proxies: dict[str, str], namespace: str) -> list[Manifest]:
    """Return the Secrets that docs/kubernetes.md tells to make, and one with a kubeconfig of the worker's service account.

    The cluster under test gives pods no tokens, and its API server is not where pods look for it.
    """
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/orchestrator-worker"
    token = admin("POST", f"{account}/token", {"spec": {}})["status"]["token"]
    kubeconfig = {
        "clusters": [{"name": "test", "cluster": {"server": proxies["server"], "insecure-skip-tls-verify": True}}],
        "users": [{"name": "worker", "user": {"token": token}}],
        "contexts": [{"name": "worker", "context": {"cluster": "test", "user": "worker"}}],
        "current-context": "worker",
    }
    names = ("SECRET_KEY", "ENCRYPTION_KEYS")
    content = {
        "orchestrator": {name: proxies[name] for name in ("DATABASE_URL", "REDIS_URL")}
        | {name: service.environment[name] for name in names},
        "orchestrator-api-keys": {"api-keys": API_KEY},
        "cluster": {"kubeconfig": yaml.safe_dump(kubeconfig)},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()},
        }
        for name, texts in content.items()
    ]


def adapt(objects: list[Manifest], image: str, suffix: str) -> None:
    """Change what a kustomization of the operator would, and what this cluster does not have."""
    for one in containers(objects):
        one |= {"image": image, "imagePullPolicy": "Never"}
    for each in objects:
        if each["kind"] == "Deployment":
            each["spec"]["replicas"] = 1
        if each["metadata"]["name"] == "orchestrator-worker" and each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            pod["volumes"].append({"name": "cluster", "secret": {"secretName": "cluster"}})
            [worker] = [one for one in pod["containers"] if one["name"] == "process"]
            del worker["resources"]["requests"]["ephemeral-storage"]
            worker["volumeMounts"].append({"name": "cluster", "mountPath": str(Path(KUBECONFIG).parent)})
            for variable in worker["env"]:
                if variable["name"] == "KUBE_NAMESPACE":
                    variable["value"] += suffix
            worker["env"] += [
                {"name": "KUBECONFIG", "value": KUBECONFIG},
                {"name": "KUBE_HELPER_IMAGE", "value": "alpine:latest"},
            ]


def test_the_pods_run_jobs(cluster_admin: Admin, namespace: str) -> None:
    # When everything was applied at once, without an order
    def running() -> dict[str, int]:
        deployments = cluster_admin("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
        return {one["metadata"]["name"]: one["status"].get("availableReplicas", 0) for one in deployments}

    # I expect all pods to become ready, once the database is migrated
    wait_for(lambda: min(running().values()) == 1, START_SECONDS, "all Deployments to be available", step=0.5)
    assert len(running()) == 4

    # And a job to run
    pods = cluster_admin("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector=app.kubernetes.io/component=web")["items"]
    [address] = [pod["status"]["podIP"] for pod in pods]
    job = run_job(f"http://{address}:8080", {"image": "alpine:latest", "command": "echo ran"})
    assert job["status"] == "completed", job

    # And its pod to count the requests of its own process
    counted = requests.get(f"http://{address}:9090/metrics", timeout=20).text
    assert 'jobs_total{image="alpine:latest"} 1.0' in counted


def run_job(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Post a job and wait for its end."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update({"Authorization": f"Bearer {API_KEY}", "Host": "localhost"})
        posted = session.post(f"{url}/v1/jobs", json=body, timeout=20)
        assert posted.status_code == 202, posted.text
        found: dict[str, Any] = wait_for(
            lambda: (job := session.get(f"{url}{posted.headers['Location']}", timeout=20).json()).get("completedAt") and job,
            120,
            "the job",
            step=0.5,
        )
        return found
