"""`jobs.engine.protocol.Engine` for a Docker engine."""

import copy
import json
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from jobs.engine.answer_stream import ByteStream
from jobs.engine.docker.container_creation import ContainerCreation
from jobs.engine.docker.container_files import ContainerFiles
from jobs.engine.docker.container_json import listed_observation, observation
from jobs.engine.docker.daemon_restarts import DaemonRestarts
from jobs.engine.docker.disk import DiskOfEngine, ImageVolumes, MeasuredUse, StorageLimit
from jobs.engine.docker.firewall import NetworkFirewall
from jobs.engine.docker.image_pulls import Images
from jobs.engine.docker.init import Init
from jobs.engine.docker.job_runtime import JobRuntime
from jobs.engine.docker.local_daemon import LocalDaemon
from jobs.engine.docker.log_frames import read_frames
from jobs.engine.docker.networks import Networks, label_filter
from jobs.engine.docker.oom_kills import reports_oom_kill
from jobs.engine.docker.resource_limits import ResourceLimits
from jobs.engine.docker.sandboxes import Sandboxes
from jobs.engine.docker.start_errors import cause_of, check_arguments
from jobs.engine.docker.transport import EngineAnswer, EngineClient, quoted
from jobs.engine.docker.unenforced_limits import EngineWarnings, flagged_limits
from jobs.engine.docker.usage import KeptUsage, StatisticsStreams
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
from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineInTrouble,
    EngineUnavailable,
    NetworkMissing,
    SandboxRefused,
    StartFailed,
    StartLost,
    StartRefused,
)
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

logger = logging.getLogger(__name__)

# Exit codes.
_KILLED: Final = 137
_NOT_EXECUTABLE: Final = 126

_BEING_REMOVED: Final = ("removing", "dead")
_KNOWN_TO_CONTAINERD: Final = "id already in use"  # after a dockerd was killed in the middle of the start (20.10)
_MAX_WAIT_ANSWER_BYTES: Final = 1024**2


class DockerEngine:
    """The Docker engine at `host`, as in `DOCKER_HOST`; empty means the usual socket. TLS is configured as for docker-py.

    The containers of protected networks cannot reach the networks in `denied`; None: they can reach everything.
    `runtime` names the OCI runtime of job containers; empty: the engine's default.

    Creating one does not connect. Raises `EngineRefused` if the host or the TLS files are not usable.
    """

    def __init__(
        self,
        host: str,
        intervals: EngineIntervals = EngineIntervals(),
        denied: Sequence[IPv4Network | IPv6Network] | None = None,
        *,
        runtime: str = "",
    ) -> None:
        self._intervals = intervals
        self._client = EngineClient(host, intervals)
        self._new_connections = EngineClient(host, intervals, keep_open=False)
        self._local = LocalDaemon(host, intervals)
        self._restarts = DaemonRestarts(self._new_connections, self._local)
        self._usage = KeptUsage(self._local)
        self._statistics = StatisticsStreams(self._client)
        self._disk_of_engine = DiskOfEngine()
        self._disk = MeasuredUse(self._client, self._disk_of_engine)
        self._volumes = ImageVolumes(self._client, self._disk_of_engine)
        self._storage_limit = StorageLimit()
        self._networks = Networks(self._client)
        self._firewall = NetworkFirewall(denied, intervals.firewall)
        self._images = Images(self._client, self._restarts, self._disk.has_room_for_images)
        self._init = Init(self._client)
        self._resource_limits = ResourceLimits()
        self._runtime = JobRuntime(runtime)
        self._creation = self._creation_of_containers()
        self._sandboxes = Sandboxes(self._client, self._init.architecture, self._runtime)
        self._files = ContainerFiles(self._client)
        self._warnings = EngineWarnings()

    @property
    def traits(self) -> EngineTraits:
        return EngineTraits()

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "DockerEngine":
        engine = copy.copy(self)
        engine._client = self._client.bound(interrupt, max_silence)
        engine._new_connections = self._new_connections.bound(interrupt, max_silence)
        engine._restarts = self._restarts.using(engine._new_connections)
        engine._networks = Networks(engine._client)
        engine._disk = self._disk.using(engine._client)
        engine._volumes = self._volumes.using(engine._client)
        engine._images = self._images.using(engine._client)
        engine._init = self._init.using(engine._client)
        engine._creation = engine._creation_of_containers()
        engine._sandboxes = Sandboxes(engine._client, engine._init.architecture, engine._runtime)
        engine._files = self._files.using(engine._client)
        return engine

    def _creation_of_containers(self) -> ContainerCreation:
        parts = (self._init, self._images, self._networks, self._resource_limits, self._runtime, self._storage_limit)
        return ContainerCreation(self._client, *parts)

    def info(self) -> EngineInfo:
        info = self._info()
        warnings = [
            *filter(None, [self._runtime.refusal]),
            *flagged_limits(info, self._client.api_version),
            *self._warnings.explain(info.get("Warnings") or []),
            *self._warnings.remembered(),
            *self._firewall.warnings(),
            *self._disk.warnings(),
            *self._resource_limits.warnings(),
        ]
        return EngineInfo(
            id=info["ID"],
            name=info["Name"],
            cpus=float(info["NCPU"]),
            memory_bytes=int(info["MemTotal"]),
            warnings=tuple(dict.fromkeys(warnings)),
            clock=datetime.fromisoformat(info["SystemTime"]).astimezone(UTC),
            refusal=self._runtime.refusal,
        )

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._client.call("GET", "/info")
        listener = self._local.listener()
        self._usage.learn(info, listener.daemon)
        self._resource_limits.learn(listener.daemon)
        self._runtime.learn(info)
        self._disk_of_engine.learn(info, listener.neighbour)
        self._storage_limit.learn(info)
        return info

    # -- networks ------------------------------------------------------------------------------
    def create_network(self, name: str, labels: dict[str, str]) -> str:
        return self._networks.create(name, labels)

    def find_network(self, network_id: str) -> str | None:
        return self._networks.find(network_id)

    def list_networks(self, labels: dict[str, str]) -> dict[str, str]:
        return self._networks.list(labels)

    def remove_network(self, network_id: str) -> None:
        self._networks.remove(network_id)

    def protect_network(self, network_id: str, owner: str) -> None:
        self._firewall.protect(network_id, owner)

    def remove_unused_rules(self, owner: str, network_ids: Collection[str]) -> None:
        self._firewall.remove_unused(owner, network_ids)

    # -- sandboxes -----------------------------------------------------------------------------
    def create_sandbox(self, name: str, network: str, labels: dict[str, str]) -> None:
        self._sandboxes.create(name, network, labels)

    def is_sandbox_clean(self, name: str) -> bool:
        return self._sandboxes.is_clean(name)

    # -- images --------------------------------------------------------------------------------
    def needs_pull(self, image: str, policy: PullPolicy) -> bool:
        return self._images.needs_pull(image, policy)

    def ensure_image(
        self,
        image: str,
        policy: PullPolicy,
        timeout: float,
        interrupt: Interrupt,
        check_registry: RegistryCheck = allow_any_registry,
    ) -> None:
        self._images.ensure(image, policy, timeout, interrupt, check_registry)

    def resolve_user(self, name: str) -> User:
        inspected = self._inspect(name)
        check_arguments(inspected["Config"])
        started = observation(inspected).phase != "created"
        return self._files.resolve_user(name, inspected["Config"].get("User") or "", inspected["Image"], changed=started)

    # -- containers ----------------------------------------------------------------------------
    def create(self, spec: RunSpec) -> None:
        parent = self._usage.parent_for(spec.name, self._info)  # asks for `info` if the engine was restarted
        body = self._creation.body(spec)
        body["HostConfig"]["CgroupParent"] = parent
        answer = self._creation.request(spec.name, body)
        if answer.status == 409:  # the name is taken: by an earlier attempt, unless that container has started
            try:
                phase = self.inspect(spec.name).phase
            except ContainerNotFound:
                phase = "created"
            if phase != "created":
                raise _has_started(spec.name)
            self.remove(spec.name)
            answer = self._creation.request(spec.name, body)
        if answer.failed:
            raise self._creation.error(spec, body, answer)
        self._warnings.remember((answer.data or {}).get("Warnings") or [])

    def prepare(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        pass

    def rename(self, name: str, new_name: str) -> None:
        self._client.call("POST", f"/containers/{quoted(name)}/rename", params={"name": new_name})

    def start(self, name: str, *, first: bool = False) -> None:
        if not first:
            inspected = self._inspect(name)
            if observation(inspected).phase != "created":  # the engine would run an ended one again
                raise _has_started(name)
            check_arguments(inspected["Config"])
        # An engine that is stopping accepts no new connection, so it starts nothing that it would then end.
        answer = self._new_connections.exchange("POST", f"/containers/{quoted(name)}/start", timeout=self._intervals.long_call)
        if answer.status == 304:
            raise _has_started(name)
        if answer.failed:
            raise self._start_error(name, answer)

    def _start_error(self, name: str, answer: EngineAnswer) -> Exception:
        """Return what a failed start means. After a 404 the container, its network or the program may be missing."""
        inspected = self._inspect(name)  # raises ContainerNotFound
        if observation(inspected).phase != "created":
            return _has_started(name)
        if answer.message == _KNOWN_TO_CONTAINERD:
            return StartLost("the engine ended while it started the process, which may have run")
        network = inspected["HostConfig"]["NetworkMode"]
        if network.startswith("container:"):
            cause = cause_of(answer.message, inspected["Config"])
            return StartFailed(cause.sentence) if cause.fault == "job" else SandboxRefused(answer.message)
        if answer.status == 409:
            return answer.error()
        if self._networks.is_missing(network):
            return NetworkMissing(answer.message)
        logger.warning("the engine did not start a container: %s", answer.message, extra={"container": name})
        if self._resource_limits.refuses(answer.message, inspected["HostConfig"].get("Ulimits") or []):
            return EngineUnavailable("the engine cannot set the resource limits of the container, so it gets fewer")
        cause = cause_of(answer.message, inspected["Config"])
        if cause.fault == "engine":
            return EngineInTrouble(answer.message)
        return StartFailed(cause.sentence) if cause.fault == "job" else StartRefused(answer.message, cause.sentence)

    def wait_until_started(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        pass

    def inspect(self, name: str) -> Observation:
        inspected = self._inspect(name)
        seen = observation(inspected)
        if seen.phase == "running":
            return replace(seen, keeps_usage=self._usage.keeps(inspected))
        if seen.phase != "ended":
            return seen
        if seen.exit_code == _NOT_EXECUTABLE:
            seen = replace(seen, wrong_platform=self._wrong_platform(inspected["Image"]))
        oom_killed = seen.oom_killed or (seen.exit_code == _KILLED and reports_oom_kill(inspected["Id"]))
        lost = self._restarts.ended(inspected["Id"], seen)
        return replace(seen, oom_killed=oom_killed, lost=lost, usage=self._usage.usage(inspected))

    def _inspect(self, name: str) -> dict[str, Any]:
        inspected: dict[str, Any] = self._client.call("GET", f"/containers/{quoted(name)}/json")
        if inspected["State"].get("Status") in _BEING_REMOVED:  # its end may be the removal's doing
            raise ContainerNotFound(f"the container {name} is being removed")
        self._volumes.learn(name, inspected.get("Mounts"))
        return inspected

    def _wrong_platform(self, image_id: str) -> str:
        image, node = self._images.architecture(image_id), self._init.architecture()
        return f"image is for {image}, node is {node}" if image and image != node else ""

    def wait(self, name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        with self._stream("POST", f"/containers/{quoted(name)}/wait", {"condition": "not-running"}, interrupt) as stream:
            if not stream.ready(timeout):
                return
            answer = json.loads(b"".join(stream.lines(_MAX_WAIT_ANSWER_BYTES)) or b"{}")
        if error := (answer.get("Error") or {}).get("Message"):
            raise EngineUnavailable(str(error)[:1000])

    def stop(self, name: str, grace: float) -> None:
        seconds = max(math.ceil(grace), 0)
        timeout = seconds + self._intervals.long_call
        self._client.call("POST", f"/containers/{quoted(name)}/stop", params={"t": str(seconds)}, timeout=timeout)

    def remove(self, name: str, *, force: bool = False) -> None:
        path, timeout = f"/containers/{quoted(name)}", self._intervals.long_call
        params = {"v": "1", "force": "1" if force else "0"}
        answer = self._client.exchange("DELETE", path, params=params, timeout=timeout)
        if answer.status >= 500 and self._disk.empty(name):  # its tree may be too deep for the engine
            answer = self._client.exchange("DELETE", path, params=params, timeout=timeout)
        if answer.status == 409 and "already in progress" in answer.message:  # another removal: wait for it
            answer = self._client.exchange("POST", f"{path}/wait", params={"condition": "removed"}, timeout=timeout)
        if answer.failed and answer.status != 404:
            raise answer.error()
        self._volumes.remove(name)
        self._usage.forget(name)

    def withdraw(self, name: str) -> None:
        # Once it has answered a start with an error, this engine does not start the process by itself.
        with suppress(ContainerNotFound):
            if self.inspect(name).has_run:
                raise ContainerConflict(f"the process of the container {name} has run")
            self.remove(name)

    def list(self, labels: dict[str, str]) -> list[Observation]:
        summaries = self._client.call("GET", "/containers/json", params={"all": "1", **label_filter(labels)})
        return [seen for summary in summaries or [] if (seen := listed_observation(summary))]

    # -- usage ---------------------------------------------------------------------------------
    def follow_usage(self, name: str) -> FollowedUsage:
        return self._statistics.follow(name)

    def kept_usage(self) -> Sequence[str]:
        return self._usage.names()

    def forget_usage(self, name: str) -> None:
        self._usage.forget(name)

    # -- disk ----------------------------------------------------------------------------------
    def disk_space(self) -> DiskSpace | None:
        return self._disk.space()

    def disk_use(self, name: str, *, count_files: bool = False) -> DiskUse:
        return self._disk.use(name, count_files=count_files)

    # -- logs ----------------------------------------------------------------------------------
    @contextmanager
    def logs(
        self,
        name: str,
        *,
        skip: int,
        follow: bool,
        interrupt: Interrupt,
        tail: int | None = None,
        after: LogPosition | None = None,  # noqa: ARG002 - `skip` tells where to go on
    ) -> Iterator[Iterator[Frames | None]]:
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0"}
        params["tail"] = "all" if tail is None else str(tail)
        with self._stream("GET", f"/containers/{quoted(name)}/logs", params, interrupt) as stream:
            yield read_frames(stream, skip=skip, max_pause=self._intervals.idle_log if follow else None)

    @contextmanager
    def _stream(self, method: str, path: str, params: dict[str, str], interrupt: Interrupt) -> Iterator[ByteStream]:
        with self._client.bound(interrupt).stream(method, path, params=params) as response:
            if isinstance(response, EngineAnswer):
                raise response.error()
            yield ByteStream(response.raw, interrupt, self._intervals)

    # -- files ---------------------------------------------------------------------------------
    def stat(self, name: str, path: str) -> Stat | None:
        return self._files.stat(name, path)

    def real_path(self, name: str, path: str) -> str:
        return self._files.real_path(name, path)

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        return self._files.added_directories(name, paths)

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        self._files.put(name, directory, tar)

    def get(self, name: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._files.get(name, path)


def _has_started(name: str) -> ContainerConflict:
    return ContainerConflict(f"the container {name} has started already")
