"""`jobs.engine.protocol.Engine` for a Kubernetes cluster."""

import copy
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.engine.kubernetes import init_program, manifest, pod_template
from jobs.engine.kubernetes.cluster_client import ClusterClient
from jobs.engine.kubernetes.cluster_info import ClusterInfo
from jobs.engine.kubernetes.cluster_objects import JobAndPod
from jobs.engine.kubernetes.credentials import load
from jobs.engine.kubernetes.job_changes import JobChanges
from jobs.engine.kubernetes.job_view import JobView
from jobs.engine.kubernetes.names import NETWORK_NAME_LABEL
from jobs.engine.kubernetes.networks import Networks
from jobs.engine.kubernetes.observations import observation, was_requested
from jobs.engine.kubernetes.pod_status import is_over
from jobs.engine.kubernetes.start_of_pods import PodStart
from jobs.engine.kubernetes.stopping import Stopping
from jobs.engine.protocol import (
    DiskSpace,
    DiskUse,
    EngineInfo,
    EngineTraits,
    FollowedUsage,
    Frames,
    LogPosition,
    Observation,
    PullPolicy,
    RegistryCheck,
    RunSpec,
    Stat,
    Usage,
    User,
    allow_any_registry,
)
from jobs.errors import ContainerConflict, ContainerNotFound, EngineRefused, EngineUnavailable, Unmeasurable
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

_TRAITS: Final = EngineTraits(schedules=True, merges_streams=True, makes_workspace=True, limits_disk=True)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's names, and the cluster's
_NO_SANDBOXES: Final = "the cluster sets up the networks of jobs: there are no sandboxes"
_MAX_CHANGES: Final = 20  # of a Job by the cluster while it is removed


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """How the operator has set up the engine."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""
    pod_template: Path | None = None
    helper_image: str = ""
    runtime: str = ""
    pull_timeout: float = 1800.0
    transfer_timeout: float = 3600.0


class KubernetesEngine:
    """One namespace of a cluster. Creating an engine does not connect.

    Raises `EngineRefused` if there are no credentials, or if the pod template cannot be used.
    """

    def __init__(self, settings: ClusterSettings, intervals: EngineIntervals = EngineIntervals()) -> None:
        connection = load(settings.kubeconfig, settings.context, settings.namespace)
        self._settings = settings
        self._template = pod_template.load(settings.pod_template, settings.runtime)
        self._architecture = self._template.architecture or _ARCHITECTURES.get(platform.machine(), platform.machine())
        self._client = ClusterClient(connection, intervals)
        self._view = JobView(self._client)
        self._networks = Networks(self._client)
        self._info = ClusterInfo(connection.name)
        self._programs_are_there = False

    @property
    def traits(self) -> EngineTraits:
        return _TRAITS

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "KubernetesEngine":
        engine = copy.copy(self)
        engine._client = self._client.bound(interrupt, max_silence)
        engine._view = self._view.using(engine._client)
        engine._networks = self._networks.using(engine._client)
        return engine

    def close(self) -> None:
        """End the watches."""
        self._view.close()

    def info(self) -> EngineInfo:
        return self._info.ask(self._client)

    # -- networks ------------------------------------------------------------------------------
    def create_network(self, name: str, labels: dict[str, str]) -> str:
        return self._networks.create(name, labels)

    def find_network(self, network_id: str) -> str | None:
        return self._networks.find(network_id)

    def list_networks(self, labels: dict[str, str]) -> dict[str, str]:
        return self._networks.list(labels)

    def remove_network(self, network_id: str) -> None:
        users = [found for found in self._view.list({}) if observation(found).phase in ("starting", "running")]
        self._networks.remove(network_id, users)

    def protect_network(self, network_id: str, owner: str) -> None:
        pass  # policies of the cluster do (deploy/kubernetes/)

    def remove_unused_rules(self, owner: str, network_ids: Collection[str]) -> None:
        pass

    # -- sandboxes -----------------------------------------------------------------------------
    def create_sandbox(self, name: str, network: str, labels: dict[str, str]) -> None:
        raise EngineRefused(_NO_SANDBOXES)

    def is_sandbox_clean(self, name: str) -> bool:
        raise ContainerNotFound(_NO_SANDBOXES)

    # -- images --------------------------------------------------------------------------------
    def needs_pull(self, image: str, policy: PullPolicy) -> bool:
        return False  # its node pulls it when the pod starts

    def ensure_image(
        self,
        image: str,
        policy: PullPolicy,
        timeout: float,
        interrupt: Interrupt,
        check_registry: RegistryCheck = allow_any_registry,
    ) -> None:
        pass

    def resolve_user(self, name: str) -> User:
        self._view.find(name)
        return User(0, 0)

    # -- containers ----------------------------------------------------------------------------
    def create(self, spec: RunSpec) -> None:
        start_seconds = int(self._settings.pull_timeout + (self._settings.transfer_timeout if spec.has_inputs else 0))
        body = manifest.job(spec, self._template, architecture=self._architecture, start_seconds=start_seconds)
        self._install_programs()
        answer = self._client.exchange("POST", self._client.jobs(), body=body)
        if answer.status == 409:  # the name is taken: by an earlier attempt, unless that one has started
            self.remove(spec.name)
            answer = self._client.exchange("POST", self._client.jobs(), body=body)
        if answer.failed:
            raise answer.error()
        self._view.objects.put_job(answer.data)

    def _install_programs(self) -> None:
        """Make the ConfigMap with the init, unless that was done before."""
        if self._programs_are_there:
            return
        answer = self._client.exchange("POST", self._client.core("configmaps"), body=init_program.config_map(self._architecture))
        if answer.failed and answer.status != 409:
            raise answer.error()
        self._programs_are_there = True

    def prepare(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        pass

    def rename(self, name: str, new_name: str) -> None:
        found = self._view.find(name)
        if self._view.objects.find(new_name) is not None:
            raise ContainerConflict(f"the name {new_name} is taken")
        if not self._changes.rename(found, name, new_name):
            self._view.ask(name)  # raises ContainerNotFound
            raise ContainerConflict(f"the Job {name} has changed meanwhile")

    def start(self, name: str, *, first: bool = False) -> None:
        found = self._view.find(name)
        if was_requested(found.job):
            raise _has_started(name)
        network = found.job["metadata"]["labels"].get(NETWORK_NAME_LABEL)
        if network is not None:
            self._networks.require(network)
        if not self._changes.request_start(found, name):
            self._view.ask(name)  # raises ContainerNotFound
            raise _has_started(name)

    def wait_until_started(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        start = PodStart(name, waiting_for, self._settings.pull_timeout)
        start.wait(self._view, self._view.find(name), lambda found: observation(found).has_run, interrupt)

    def inspect(self, name: str) -> Observation:
        return observation(self._view.find(name))

    def wait(self, name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        def is_over(found: JobAndPod | None) -> bool | None:
            return found is None or observation(found).phase in ("created", "ended") or None

        self._view.wait(self._view.find(name).key, is_over, interrupt, timeout)

    def stop(self, name: str, grace: float) -> None:
        self._stopping.stop(name, grace)

    def remove(self, name: str, *, force: bool = False) -> None:
        for _ in range(_MAX_CHANGES):
            try:
                found = self._view.find(name)
            except ContainerNotFound:
                return
            if not force and observation(found).phase in ("starting", "running"):
                raise ContainerConflict(f"the container {name} runs, or is about to")
            answer = self._changes.delete(found)
            if answer.failed and answer.status not in (404, 409):
                raise answer.error()
            if answer.status != 409:
                self._view.objects.job_deleted(found.job)
                self._delete_pod(found)
                return
            self._look_again(name)
        raise EngineUnavailable(f"the cluster changes the Job {name} all the time")

    def _look_again(self, name: str) -> None:
        """Record what has become of a Job."""
        try:
            self._view.ask(name)
        except ContainerNotFound:
            found = self._view.objects.find(name)
            if found is not None:
                self._view.objects.job_deleted(found.job)

    def _delete_pod(self, found: JobAndPod) -> None:
        """Delete a pod at once that still runs: the cluster would give it its grace."""
        if found.pod is None or found.pod_is_gone or is_over(found.pod):
            return
        path = self._client.core("pods", found.pod["metadata"]["name"])
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": found.pod["metadata"]["uid"]}}
        answer = self._client.exchange("DELETE", path, body=body)
        if answer.failed and answer.status not in (404, 409):
            raise answer.error()

    def list(self, labels: dict[str, str]) -> list[Observation]:
        return [observation(found) for found in self._view.list(labels)]

    @property
    def _changes(self) -> JobChanges:
        return JobChanges(self._client, self._view.objects.put_job, self._template.queue)

    @property
    def _stopping(self) -> Stopping:
        return Stopping(self._client, self._view, self._changes)

    # -- usage ---------------------------------------------------------------------------------
    def follow_usage(self, name: str) -> FollowedUsage:
        return _UnknownUsage()

    def kept_usage(self) -> Sequence[str]:
        return ()

    def forget_usage(self, name: str) -> None:
        pass

    # -- disk ----------------------------------------------------------------------------------
    def disk_space(self) -> DiskSpace | None:
        return None

    def disk_use(self, name: str, *, count_files: bool = False) -> DiskUse:
        self._view.find(name)
        raise Unmeasurable("the cluster does not say what a container has written")

    # -- logs ----------------------------------------------------------------------------------
    def logs(
        self,
        name: str,
        *,
        skip: int,
        follow: bool,
        interrupt: Interrupt,
        tail: int | None = None,
        after: LogPosition | None = None,
    ) -> AbstractContextManager[Iterator[Frames | None]]:
        raise NotImplementedError

    # -- files ---------------------------------------------------------------------------------
    def stat(self, name: str, path: str) -> Stat | None:
        raise NotImplementedError

    def real_path(self, name: str, path: str) -> str:
        raise NotImplementedError

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        raise NotImplementedError

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        raise NotImplementedError

    def get(self, name: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        raise NotImplementedError


class _UnknownUsage:
    def latest(self) -> Usage | None:
        return None

    def close(self) -> None:
        pass


def _has_started(name: str) -> ContainerConflict:
    return ContainerConflict(f"the container {name} has started already")
