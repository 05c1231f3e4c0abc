"""A cluster that a test may harm, and an installation on it."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, Self

from urllib3.exceptions import HTTPError

from jobs.engine.kubernetes.states.pod_status import parse_time
from jobs.running.container_labels import UUID_LABEL
from tests.faults.system import System
from tests.helpers.clusters import Namespace
from tests.helpers.waiting import wait_for

_PAUSE: Final = 0.25
_GONE_SECONDS: Final = 90.0  # a container may be removed 30 s after it was made, and a sweep comes every 30 s


class PodStarts:
    """Counts how often the process of each job was started, by what a watch says. Survives restarts of the API server."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._seen: dict[str, str] = {}  # id of the container → uuid of the job
        self._version = ""
        self._watches = 0  # that have ended with everything reported that happened until then
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pod starts", daemon=True)

    def __enter__(self) -> Self:
        self._list()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(15)

    def by_job(self) -> Counter[str]:
        """Return the number of starts until now for each job's uuid."""
        begun = self._watches + 1  # the one that is open may have been asked for before the last of them
        wait_for(lambda: self._watches > begun, 60, "the watch of pods to report what has happened")
        return Counter(self._seen.values())

    def _watch(self) -> None:
        while not self._closing.is_set():
            with suppress(HTTPError, OSError):
                self._follow()
            self._closing.wait(_PAUSE)

    def _list(self) -> None:
        found = self._namespace.admin("GET", self._namespace.path("pods"))
        for pod in found["items"]:
            self._record(pod)
        self._version = found["metadata"]["resourceVersion"]

    def _follow(self) -> None:
        for event in self._namespace.admin.watch(self._namespace.path("pods"), self._version, seconds=2):
            if event["type"] == "ERROR":  # a new API server may not know the version
                self._list()
                return
            self._record(event["object"])
            self._version = event["object"]["metadata"]["resourceVersion"]
        self._watches += 1

    def _record(self, pod: dict[str, Any]) -> None:
        if UUID_LABEL not in pod["metadata"]["labels"]:  # left by an earlier test of the engine
            return
        for status in pod["status"].get("containerStatuses", ()):
            state = status["state"].get("running") or status["state"].get("terminated") or {}
            if status["name"] == "job" and parse_time(state.get("startedAt")):  # else its start has failed
                self._seen[status["containerID"]] = pod["metadata"]["labels"][UUID_LABEL]


class ClusterSystem(System):
    """An installation on a namespace of a cluster, and on container engines if there are any."""

    def __init__(self, namespace: Namespace, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.namespace = namespace

    def check(self, timeout: float = 180) -> None:
        """See `System.check`. If it fails, print what the cluster says of its pods."""
        try:
            super().check(timeout)
        except AssertionError:
            for pod in self.namespace.pods():
                print(pod["metadata"]["name"], pod["metadata"].get("deletionTimestamp", ""), pod["status"])
            raise

    def check_that_nothing_is_left(self) -> None:
        super().check_that_nothing_is_left()
        self.service.restart("relay")
        for kind in ("jobs", "pods", "secrets"):
            wait_for(lambda kind=kind: self.left(kind) == [], _GONE_SECONDS, f"{kind} of ended jobs to go", step=0.5)

    def left(self, kind: str) -> list[str]:
        """Return the names of what is there of a kind in the cluster for jobs of this installation."""
        path = self.namespace.path(kind, group="/apis/batch/v1" if kind == "jobs" else "/api/v1")
        names = [found["metadata"]["name"] for found in self.namespace.admin("GET", path)["items"]]
        return [name for name in names if name.startswith(f"{self.instance}-")]

    def remove_all(self) -> None:
        """Remove what a test that has failed may have left."""
        jobs = self.namespace.path("jobs", group="/apis/batch/v1")
        for name in self.left("jobs"):
            self.namespace.admin("DELETE", f"{jobs}/{name}", {"propagationPolicy": "Background", "gracePeriodSeconds": 0})

    def job_object(self, job_id: str) -> dict[str, Any]:
        """Return the Job of a job."""
        (found,) = [one for one in self.namespace.jobs() if one["metadata"]["labels"][UUID_LABEL] == self.uuid_of(job_id)]
        return found

    def delete(self, kind: str, job_id: str) -> None:
        """Delete the Job of a job, or its pod, as an operator would."""
        name = self.job_object(job_id)["metadata"]["name"]
        if kind == "job":
            path = self.namespace.path("jobs", name, group="/apis/batch/v1")
            self.namespace.admin("DELETE", path, {"propagationPolicy": "Background"})
        else:
            pod = self.namespace.pod_of(name)["metadata"]["name"]
            self.namespace.admin("DELETE", self.namespace.path("pods", pod), {"gracePeriodSeconds": 1})


ClusterSystemOn = Callable[..., AbstractContextManager[ClusterSystem]]
