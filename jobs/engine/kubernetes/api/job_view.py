"""Finds Jobs and waits for them, without asking the cluster again what its watches have reported."""

import copy
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import ClusterObjects, JobAndPod, Object
from jobs.engine.kubernetes.api.watch import Kind, Watch
from jobs.engine.kubernetes.names import NAME_LABEL
from jobs.errors import ContainerNotFound
from jobs.interrupt import Interrupt

T = TypeVar("T")


class JobView:
    """The Jobs of one namespace and their pods. Thread-safe. Its first use begins the two watches.

    All calls raise `EngineUnavailable` while a watch is cut off, so that what is not known is not taken for missing.
    """

    def __init__(self, client: ClusterClient, ended_by_itself: Callable[[Object], bool]) -> None:
        """`ended_by_itself` is that of `ClusterObjects`."""
        self._client = client
        self.objects = objects = ClusterObjects(ended_by_itself)
        self._watches = (
            Watch(Kind("jobs", client.jobs(), objects.put_job, objects.job_deleted, objects.only_jobs), client, objects),
            Watch(Kind("pods", client.core("pods"), objects.put_pod, objects.pod_deleted, objects.only_pods), client, objects),
        )

    def using(self, client: ClusterClient) -> "JobView":
        """Return the same view, whose calls end with the client's interrupt."""
        view = copy.copy(self)
        view._client = client
        return view

    def close(self) -> None:
        """End the watches."""
        for watch in self._watches:
            watch.close()

    def find(self, name: str) -> JobAndPod:
        """Return the Job that we address by this name. Raise `ContainerNotFound`.

        Another worker may have made it a moment ago. So the cluster is asked before one is said to be missing.
        """
        self._require()
        return self.objects.find(name) or self.ask(name)

    def ask(self, name: str) -> JobAndPod:
        """Return the Job as the cluster has it now. Raise `ContainerNotFound`."""
        for found in self.list({NAME_LABEL: name}):
            return found
        raise ContainerNotFound(f"there is no Job {name} in the cluster")

    def list(self, labels: dict[str, str]) -> list[JobAndPod]:
        """Return all Jobs that have these labels, as the cluster has them now: another worker may have made one a moment ago."""
        self._require()
        selector = ",".join((NAME_LABEL, *(f"{name}={value}" for name, value in labels.items())))
        listed = self._client.call("GET", self._client.jobs(), params={"labelSelector": selector})["items"]
        for job in listed:
            self.objects.put_job(job)
        pairs = [self.objects.get(job["metadata"]["name"]) for job in listed]
        return [pair for pair in pairs if pair is not None and _has(pair, labels)]

    def wait(
        self, key: str, done: Callable[[JobAndPod | None], T | None], interrupt: Interrupt, timeout: float | None = None
    ) -> T | None:
        """Return what `done` returns for the Job whose own name is `key` as soon as that is not None, or None at the time-out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with (
            self.objects.watching(key) as changed,
            interrupt.waking(changed.set),
            self._client.interrupt.waking(changed.set),
        ):
            while True:
                changed.clear()
                interrupt.check()
                self._require()
                result = done(self.objects.get(key))
                left = None if deadline is None else deadline - time.monotonic()
                if result is not None or (left is not None and left <= 0):
                    return result
                changed.wait(left)

    def _require(self) -> None:
        self._client.interrupt.check()
        for watch in self._watches:
            watch.require(self._client.interrupt)


def _has(found: JobAndPod, labels: dict[str, str]) -> bool:
    return bool(labels.items() <= found.job["metadata"].get("labels", {}).items())
