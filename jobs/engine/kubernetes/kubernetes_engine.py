"""`jobs.engine.protocol.Engine` for a Kubernetes cluster."""

import copy
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Final

from jobs.engine.kubernetes import pod_template
from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.engine.kubernetes.api.cluster_objects import JobAndPod
from jobs.engine.kubernetes.api.credentials import load
from jobs.engine.kubernetes.api.job_changes import JobChanges
from jobs.engine.kubernetes.api.job_view import JobView
from jobs.engine.kubernetes.cluster_info import ClusterInfo
from jobs.engine.kubernetes.cluster_settings import ClusterSettings
from jobs.engine.kubernetes.files import PodFiles
from jobs.engine.kubernetes.logs.log_requests import LogRequests
from jobs.engine.kubernetes.logs.pod_logs import open_log
from jobs.engine.kubernetes.manifest.job_creation import JobCreation
from jobs.engine.kubernetes.names import NETWORK_NAME_LABEL
from jobs.engine.kubernetes.networks import Networks
from jobs.engine.kubernetes.pod_helpers import PodHelpers, has_inputs, inputs_are_open
from jobs.engine.kubernetes.pod_usage import PodUsage
from jobs.engine.kubernetes.removal import Removal
from jobs.engine.kubernetes.start_of_pods import PodStart, deleted_in_start
from jobs.engine.kubernetes.states.observations import observation, was_requested
from jobs.engine.kubernetes.states.pod_status import ended_by_itself
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
    User,
    allow_any_registry,
)
from jobs.errors import ContainerConflict, ContainerNotFound, EngineRefused, EngineUnavailable, JobError, Unmeasurable
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

_TRAITS: Final = EngineTraits(
    schedules=True,
    merges_streams=True,
    makes_workspace=True,
    reaches_only_workspace=True,
    ignores_image_groups=True,
    pulls_at_start=True,
    limits_disk=True,
    finds_log_positions=True,
    keeps_carriage_returns=False,
)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's names, and the cluster's
_NO_SANDBOXES: Final = "the cluster sets up the networks of jobs: there are no sandboxes"


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
        self._view = JobView(self._client, ended_by_itself)
        self._networks = Networks(self._client)
        self._info = ClusterInfo(connection.name)
        self._helpers = PodHelpers(self._client, self._template, self._architecture, settings)
        self._usage = PodUsage(self._client)
        self._creation = JobCreation(self._client, self._template, self._helpers, self._architecture, settings)

    @property
    def traits(self) -> EngineTraits:
        return _TRAITS

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "KubernetesEngine":
        engine = copy.copy(self)
        engine._client = self._client.bound(interrupt, max_silence)
        engine._view = self._view.using(engine._client)
        engine._networks = self._networks.using(engine._client)
        engine._helpers = self._helpers.using(engine._client)
        engine._creation = self._creation.using(engine._client, engine._helpers)
        return engine

    def close(self) -> None:
        """End the watches."""
        self._view.close()

    def info(self) -> EngineInfo:
        return replace(self._info.ask(self._client), refusal=self._creation.refusal())

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
        found = self._view.find(name)
        # Without inputs it does not matter: the user is that of the files that are put into the container.
        return self._files(found, name).user() if has_inputs(found.job) and not was_requested(found.job) else User(0, 0)

    # -- containers ----------------------------------------------------------------------------
    def create(self, spec: RunSpec) -> None:
        body = self._creation.body(spec)
        answer = self._creation.request(body)
        if answer.status == 409:  # the name is taken: by an earlier attempt, unless that one has started
            self._remove_unstarted(spec.name)
            answer = self._creation.request(body)
        if answer.failed:
            raise self._creation.error(answer)
        self._view.objects.put_job(answer.data)
        self._helpers.make_tokens(answer.data)

    def _remove_unstarted(self, name: str) -> None:
        try:
            if observation(self._view.find(name)).phase != "created":
                raise _has_started(name)
        except ContainerNotFound:
            return
        self.remove(name)

    def prepare(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        found = self._view.find(name)
        if not has_inputs(found.job) or was_requested(found.job):
            return
        if not self._changes.release(found, name):
            self._view.ask(name)  # raises ContainerNotFound
            raise EngineUnavailable(f"the Job {name} has changed meanwhile")
        self._pod_start(name, waiting_for).wait(self._view, found, inputs_are_open, interrupt)

    def _pod_start(self, name: str, waiting_for: Callable[[str], None]) -> PodStart:
        patience = self._client.intervals.cluster_patience
        return PodStart(name, waiting_for, pull_timeout=self._settings.pull_timeout, patience=patience)

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
        def needs_us(found: JobAndPod) -> bool:
            return observation(found).has_run or inputs_are_open(found)

        try:
            found = self._view.find(name)
        except ContainerNotFound:
            raise deleted_in_start() from None
        start = self._pod_start(name, waiting_for)
        start.wait(self._view, found, needs_us, interrupt)
        found = self._view.objects.get(found.key) or found
        if inputs_are_open(found):
            self._helpers.files(found).finish()
            start.wait(self._view, found, lambda found: observation(found).has_run, interrupt)

    def inspect(self, name: str) -> Observation:
        return observation(self._view.find(name))

    def wait(self, name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        def is_over(found: JobAndPod | None) -> bool | None:
            return found is None or observation(found).phase in ("created", "ended") or None

        self._view.wait(self._view.find(name).key, is_over, interrupt, timeout)

    def stop(self, name: str, grace: float) -> None:
        self._stopping.stop(name, grace)

    def remove(self, name: str, *, force: bool = False) -> None:
        self._removal.remove(name, force=force)

    def withdraw(self, name: str) -> None:
        self._removal.withdraw(name)

    def list(self, labels: dict[str, str]) -> list[Observation]:
        return [observation(found) for found in self._view.list(labels)]

    @property
    def _changes(self) -> JobChanges:
        return JobChanges(self._client, self._view.objects.put_job, self._template.queue)

    @property
    def _removal(self) -> Removal:
        return Removal(self._client, self._view, self._changes)

    @property
    def _stopping(self) -> Stopping:
        return Stopping(self._client, self._view, self._changes, self._helpers)

    # -- usage ---------------------------------------------------------------------------------
    def follow_usage(self, name: str) -> FollowedUsage:
        try:
            key = self._view.find(name).key
        except JobError:  # it will not be known
            key = name
        return self._usage.follow(key)

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
        found = self._view.find(name)
        phase = observation(found).phase
        if found.pod is None or phase in ("created", "starting"):
            return nullcontext(iter(()))
        requests = LogRequests(self._client.bound(interrupt), found.pod["metadata"]["name"], is_final=phase == "ended")
        max_pause = self._client.intervals.idle_log if follow else None
        return open_log(requests, skip=skip, tail=tail, after=after, max_pause=max_pause)

    # -- files ---------------------------------------------------------------------------------
    def stat(self, name: str, path: str) -> Stat | None:
        return self._files(self._view.find(name), name).stat(path)

    def real_path(self, name: str, path: str) -> str:
        return self._files(self._view.find(name), name).real_path(path)

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        return self._files(self._view.find(name), name).added_directories(paths)

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        self._files(self._view.find(name), name).put(directory, tar)

    def get(self, name: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._files(self._view.find(name), name).get(path)

    def _files(self, found: JobAndPod, name: str) -> PodFiles:
        """Return access to the files of a container, once its pod takes its inputs."""
        self.prepare(name, lambda _: None, self._client.interrupt)
        return self._helpers.files(self._view.objects.get(found.key) or found)


def _has_started(name: str) -> ContainerConflict:
    return ContainerConflict(f"the container {name} has started already")
