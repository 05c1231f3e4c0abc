"""What the cluster has reported about Jobs and their pods, and who waits for a change of it. No I/O."""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from jobs.engine.kubernetes.names import JOB_NAME_LABEL, NAME_LABEL

Object = Mapping[str, Any]

_NO_JOB: Final[Object] = {"metadata": {"uid": None}}
_MAX_TOMBSTONES: Final = 10_000


@dataclass(frozen=True, slots=True)
class JobAndPod:
    """A Job and its pod, as far as the cluster has reported them."""

    job: Object
    pod: Object | None = None  # the last one that the Job had
    pod_is_gone: bool = False
    ended_by_itself: bool = False  # its process was reported to have ended before anything was to end its pod

    @property
    def key(self) -> str:
        """The Job's own name, which never changes."""
        return str(self.job["metadata"]["name"])


class ClusterObjects:
    """The Jobs and pods of one namespace. Thread-safe. What it has never gets older than it is."""

    def __init__(self, ended_by_itself: Callable[[Object], bool]) -> None:
        """`ended_by_itself` says whether a pod's process has ended, and nothing was to end the pod by then."""
        self._ended_by_itself = ended_by_itself
        self._lock = threading.Lock()
        self._jobs: dict[str, Object] = {}
        self._names: dict[str, str] = {}  # from the label to the Job's own name
        self._pods: dict[
            str, Object
        ] = {}  # by the Job's uid: another Job may get the name before the last pod of this one is gone
        self._gone_pods: set[str] = set()  # uids of pods in `_pods`
        self._ended_pods: set[str] = set()  # uids of those whose process was once seen to have ended by itself
        self._kept: defaultdict[str, set[str]] = defaultdict(set)  # uids of Jobs that are gone, by name, while a call waits
        self._deleted: OrderedDict[str, None] = OrderedDict()  # uids: an answer may come after the event of the deletion
        self._waiting: defaultdict[str, set[threading.Event]] = defaultdict(set)

    # -- reading -----------------------------------------------------------------------------------
    def find(self, name: str) -> JobAndPod | None:
        """Return the Job that we address by this name."""
        with self._lock:
            return self._pair(self._names.get(name, ""))

    def get(self, key: str) -> JobAndPod | None:
        """Return the Job with this name of its own."""
        with self._lock:
            return self._pair(key)

    def of(self, job: Object) -> JobAndPod:
        """Return a Job that is gone, with what was last known of its pod; that is kept as long as a call waits for the Job."""
        with self._lock:
            return self._with_pod(job)

    def all(self) -> list[JobAndPod]:
        """Return all Jobs."""
        with self._lock:
            return [pair for key in self._jobs if (pair := self._pair(key))]

    @contextmanager
    def watching(self, key: str) -> Iterator[threading.Event]:
        """Yield an event that is set whenever the Job of this name, or its pod, has changed."""
        changed = threading.Event()
        with self._lock:
            self._waiting[key].add(changed)
        try:
            yield changed
        finally:
            with self._lock:
                self._waiting[key].discard(changed)
                if not self._waiting[key]:
                    del self._waiting[key]
                    for owner in self._kept.pop(key, ()):
                        self._forget_pod(owner)

    # -- changing ----------------------------------------------------------------------------------
    def wake_all(self) -> None:
        """Wake all who wait for a change."""
        with self._lock:
            for events in self._waiting.values():
                for event in events:
                    event.set()

    def put_job(self, job: Object) -> None:
        """Record what the cluster has reported about a Job."""
        with self._lock:
            key = job["metadata"]["name"]
            known = self._jobs.get(key)
            if job["metadata"]["uid"] in self._deleted or (known is not None and not _is_newer(job, known)):
                return
            if known is not None and known["metadata"]["uid"] == job["metadata"]["uid"]:
                self._forget_name(known)
            elif known is not None:
                self._remove_job(key)
            self._jobs[key] = job
            self._names[_name(job)] = key
            self._wake(key)

    def put_pod(self, pod: Object) -> None:
        """Record what the cluster has reported about a pod."""
        with self._lock:
            owner = _owner(pod)
            known = self._pods.get(owner)
            if pod["metadata"]["uid"] in self._deleted or (known is not None and not _is_newer(pod, known)):
                return
            self._pods[owner] = pod
            if self._ended_by_itself(pod):
                self._ended_pods.add(pod["metadata"]["uid"])
            self._wake(_job_name(pod))

    def job_deleted(self, job: Object) -> None:
        """Record that a Job is gone."""
        with self._lock:
            self._bury(job)
            key = job["metadata"]["name"]
            known = self._jobs.get(key)
            if known is not None and known["metadata"]["uid"] == job["metadata"]["uid"]:
                self._remove_job(key)

    def pod_deleted(self, pod: Object) -> None:
        """Record that a pod is gone. What was last known of it stays as long as its Job."""
        with self._lock:
            self._bury(pod)
            owner, key = _owner(pod), _job_name(pod)
            known = self._pods.get(owner)
            if known is None or known["metadata"]["uid"] != pod["metadata"]["uid"]:
                return
            self._pods[owner] = pod if _is_newer(pod, known) else known
            self._gone_pods.add(known["metadata"]["uid"])
            if owner != self._jobs.get(key, _NO_JOB)["metadata"]["uid"]:
                self._forget_if_unneeded(owner, key)
            self._wake(key)

    def only_jobs(self, jobs: Iterable[Object], version: int) -> None:
        """Record a complete list of Jobs as of `version`."""
        listed = list(jobs)
        uids = {job["metadata"]["uid"] for job in listed}
        for job in listed:
            self.put_job(job)
        for known in self._known(self._jobs):
            if known["metadata"]["uid"] not in uids and version_of(known) <= version:
                self.job_deleted(known)

    def only_pods(self, pods: Iterable[Object], version: int) -> None:
        """Record a complete list of pods as of `version`."""
        listed = list(pods)
        uids = {pod["metadata"]["uid"] for pod in listed}
        for pod in listed:
            self.put_pod(pod)
        for known in self._known(self._pods):
            if known["metadata"]["uid"] not in uids and version_of(known) <= version:
                self.pod_deleted(known)

    def _known(self, objects: Mapping[str, Object]) -> list[Object]:
        with self._lock:
            return list(objects.values())

    def _pair(self, key: str) -> JobAndPod | None:
        job = self._jobs.get(key)
        return None if job is None else self._with_pod(job)

    def _with_pod(self, job: Object) -> JobAndPod:
        pod = self._pods.get(job["metadata"]["uid"])
        if pod is None:
            return JobAndPod(job)
        uid = pod["metadata"]["uid"]
        return JobAndPod(job, pod, uid in self._gone_pods, uid in self._ended_pods)

    def _remove_job(self, key: str) -> None:
        job = self._jobs.pop(key)
        self._forget_name(job)
        pod = self._pods.get(job["metadata"]["uid"])
        if pod is not None and pod["metadata"]["uid"] in self._gone_pods:
            self._forget_if_unneeded(job["metadata"]["uid"], key)
        self._wake(key)

    def _forget_name(self, job: Object) -> None:
        if self._names.get(_name(job)) == job["metadata"]["name"]:
            del self._names[_name(job)]

    def _forget_if_unneeded(self, owner: str, key: str) -> None:
        """Forget the last pod of a Job that is gone once no call waits for that."""
        if key in self._waiting:
            self._kept[key].add(owner)
        else:
            self._forget_pod(owner)

    def _forget_pod(self, owner: str) -> None:
        uid = self._pods.pop(owner)["metadata"]["uid"]
        self._gone_pods.discard(uid)
        self._ended_pods.discard(uid)

    def _bury(self, deleted: Object) -> None:
        self._deleted[deleted["metadata"]["uid"]] = None
        while len(self._deleted) > _MAX_TOMBSTONES:
            self._deleted.popitem(last=False)

    def _wake(self, key: str) -> None:
        for event in self._waiting.get(key, ()):
            event.set()


def version_of(found: Object) -> int:
    """Return an object's version: a number that grows, although the API long called it opaque."""
    return int(found["metadata"]["resourceVersion"])


def _is_newer(found: Object, known: Object) -> bool:
    return version_of(found) > version_of(known)


def _name(job: Object) -> str:
    return str(job["metadata"].get("labels", {}).get(NAME_LABEL, ""))


def _job_name(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get(JOB_NAME_LABEL, ""))


def _owner(pod: Object) -> str:
    """Return the uid of the pod's Job."""
    owners = pod["metadata"].get("ownerReferences") or ({"uid": ""},)
    return str(owners[0]["uid"])
