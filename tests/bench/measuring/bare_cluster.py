"""A loop without the service that runs the same Jobs on a Kubernetes cluster: creates them and watches their pods."""

import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import kubernetes

from jobs.engine.docker.container_json import CAPABILITIES
from tests.helpers.waiting import wait_for

IMAGE = "alpine:latest"
LABEL = "orchestrator-bench"
MAX_SECONDS = 240


@contextmanager
def new_namespace() -> Iterator[str]:
    """Provide a namespace of the cluster that KUBECONFIG names, and remove it at the end with all that is in it."""
    warnings.filterwarnings("ignore", "Unverified HTTPS request")  # a cluster for tests has a certificate of its own
    kubernetes.config.load_kube_config()
    name = f"orchestrator-bench-{uuid.uuid4().hex[:8]}"
    api = kubernetes.client.CoreV1Api()
    api.create_namespace({"metadata": {"name": name}})
    try:
        yield name
    finally:
        api.delete_namespace(name)


class BareLoop:
    """Runs Jobs in a namespace. A thread watches their pods and notes when it is told that their containers have ended."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._batch = kubernetes.client.BatchV1Api()
        self._core = kubernetes.client.CoreV1Api()
        self._watch = kubernetes.watch.Watch()
        self._ended: dict[str, float] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._note_ends, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the Jobs and stop watching."""
        self._batch.delete_collection_namespaced_job(self._namespace, label_selector=LABEL, propagation_policy="Background")
        self._watch.stop()

    def seconds(self, jobs: int, cpu: float, memory_mib: int, command: list[str]) -> float:
        """Create Jobs one after the other, and return how long it takes until the containers of all have ended."""
        names = {f"bench-{uuid.uuid4().hex}" for _ in range(jobs)}
        started = time.monotonic()
        for name in names:
            self._batch.create_namespaced_job(self._namespace, manifest(name, cpu, memory_mib, command))
        with self._changed:
            if not self._changed.wait_for(lambda: names <= self._ended.keys(), MAX_SECONDS):
                raise TimeoutError(f"{len(names - self._ended.keys())} of {jobs} Jobs did not end")
        return max(self._ended[name] for name in names) - started

    def wait_until_idle(self) -> None:
        """Wait until no pod of the namespace holds any cpu or memory: a node gives those of a pod back a second after its end."""
        wait_for(lambda: not self._pods_that_hold_resources(), MAX_SECONDS, "the cluster to be idle", step=0.05)

    def _pods_that_hold_resources(self) -> list[str]:
        pods = self._core.list_namespaced_pod(self._namespace, resource_version="0").items
        return [pod.metadata.name for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]

    def _note_ends(self) -> None:
        for event in self._watch.stream(self._core.list_namespaced_pod, self._namespace, label_selector=LABEL):
            if event is None:  # after `stop`
                return
            pod = event["object"]
            statuses = pod.status.container_statuses or []
            if statuses and all(status.state.terminated for status in statuses):
                with self._changed:
                    self._ended.setdefault(pod.metadata.labels[LABEL], time.monotonic())
                    self._changed.notify_all()


def manifest(name: str, cpu: float, memory_mib: int, command: list[str]) -> dict[str, Any]:
    """Return a Job with one container that is limited like those of the service."""
    amounts = {"cpu": f"{round(cpu * 1000)}m", "memory": f"{memory_mib}Mi"}
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "job",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "workingDir": "/workspace",
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": security,
        "volumeMounts": [{"name": "workspace", "mountPath": "/workspace"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": [{"name": "workspace", "emptyDir": {}}],
    }
    labels = {LABEL: name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
