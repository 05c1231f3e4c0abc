"""The fake engine: its containers by name, its images and its networks."""

import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.engine import container_user, image_errors
from jobs.engine.docker import start_errors
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
from jobs.engine.pullable_reference import parse_reference
from jobs.engine.shared_pulls import SharedPulls
from jobs.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineRefused,
    ImageUnavailable,
    NetworkMissing,
    PathNotFound,
    SandboxRefused,
    StartFailed,
)
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.fake_engine.fault_injection import FaultInjection, fallible
from tests.fake_engine.process_container import FakeContainer, FakeImage

_SANDBOX_SECONDS = 3600
_SANDBOX_MEMORY_MIB = 16
_PULL_GATE_CHECK = 0.01  # seconds
_RESTART_GRACE = 1.0  # seconds


class FakeEngine(FaultInjection):
    """An engine with the images in `images`, and those in `registry` after a pull. `pulls` lists the pulled ones in order.

    Clear `pulls_allowed` to hold all pulls; `pulls_begun` counts them. Add the name of a sandbox to `changed_sandboxes` as if a
    job had changed its files. Clear `keeps_usage` to have an engine that only says what running containers use; `usage_followed`
    has the names of those, and `protected` the ids of the networks with firewall rules. Call `close` at the end.
    """

    _container_class = FakeContainer

    def __init__(
        self,
        *,
        name: str = "fake",
        cpus: float = 8,
        memory_bytes: int = 16 * 1024**3,
        intervals: EngineIntervals = EngineIntervals(),
    ) -> None:
        super().__init__()
        self.images: dict[str, FakeImage] = {"alpine:latest": FakeImage()}
        self.registry: dict[str, FakeImage] = {}
        self.warnings: tuple[str, ...] = ()
        self.cannot_run = ""
        self.disk: DiskSpace | None = None
        self.pulls: list[str] = []
        self.pulls_begun = 0
        self.changed_sandboxes: set[str] = set()
        self.keeps_usage = True
        self.usage_followed: list[str] = []
        self.protected: set[str] = set()  # ids of networks that have firewall rules
        self.pulls_allowed = threading.Event()
        self.pulls_allowed.set()
        self._id = secrets.token_hex(8)
        self._name, self._cpus, self._memory_bytes = name, cpus, memory_bytes
        self._intervals = intervals
        self._lock = threading.RLock()
        self._containers: dict[str, FakeContainer] = {}
        self._networks: dict[str, tuple[str, dict[str, str]]] = {}
        self._kept_usage: set[str] = set()  # names under which containers were created
        self._shared_pulls = SharedPulls()
        self._began = datetime.now(UTC)
        self._directory = Path(tempfile.mkdtemp(prefix="fake-engine-"))

    def restart(self) -> None:
        """Stop and start the engine: every process is asked to end, and what has ended is lost."""
        self.unavailable = True
        for container in list(self._containers.values()):
            container.stop(_RESTART_GRACE)
        self._began = datetime.now(UTC)
        self.unavailable = False

    def close(self) -> None:
        """End all containers and remove their files."""
        self.unavailable = False
        for container in list(self._containers.values()):
            container.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wake_blocked_calls(self) -> None:
        with self._lock:
            containers = list(self._containers.values())
        for container in containers:
            container.notify()

    # -- the engine ------------------------------------------------------------------------------
    @property
    def traits(self) -> EngineTraits:
        return EngineTraits()

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "FakeEngine":
        """Return itself: apart from `stop`, calls that may block have an interrupt of their own."""
        return self

    @fallible
    def info(self) -> EngineInfo:
        return EngineInfo(self._id, self._name, self._cpus, self._memory_bytes, self.warnings, datetime.now(UTC), self.cannot_run)

    @fallible
    def create_network(self, name: str, labels: dict[str, str]) -> str:
        with self._lock:
            if any(name == taken for taken, _ in self._networks.values()):
                raise ContainerConflict(f"network with name {name} already exists")
            network_id = secrets.token_hex(32)
            self._networks[network_id] = (name, labels)
            return network_id

    @fallible
    def find_network(self, network_id: str) -> str | None:
        with self._lock:
            return self._networks.get(network_id, (None, {}))[0]

    @fallible
    def list_networks(self, labels: dict[str, str]) -> dict[str, str]:
        with self._lock:
            return {key: name for key, (name, theirs) in self._networks.items() if labels.items() <= theirs.items()}

    @fallible
    def remove_network(self, network_id: str) -> None:
        with self._lock:
            name, _ = self._networks.get(network_id, (None, {}))
            if name and any(one.spec.network == name and one.phase == "running" for one in self._containers.values()):
                raise ContainerConflict(f"network {name} has active endpoints")
            self._networks.pop(network_id, None)

    def protect_network(self, network_id: str, owner: str) -> None:
        self.protected.add(network_id)

    def remove_unused_rules(self, owner: str, network_ids: Collection[str]) -> None:
        self.protected &= {*network_ids, *self._networks}

    # -- sandboxes ---------------------------------------------------------------------------------
    @fallible
    def create_sandbox(self, name: str, network: str, labels: dict[str, str]) -> None:
        spec = RunSpec(
            name=name,
            image="",
            command=("sleep", str(_SANDBOX_SECONDS)),
            environment={},
            workspace="/",
            cpu_millis=0,
            memory_mib=_SANDBOX_MEMORY_MIB,
            network=network,
            labels=dict(labels),
            stop_grace_seconds=0,
            log_limit_bytes=0,
        )
        with self._lock:
            if name in self._containers:
                raise ContainerConflict(f"the name {name} is taken")
            self._containers[name] = self._new_container(spec, FakeImage())
        self.start(name)

    @fallible
    def is_sandbox_clean(self, name: str) -> bool:
        container = self._find(name)
        if container.name in self.changed_sandboxes:
            container.kill()
        return container.phase == "running"

    # -- images ------------------------------------------------------------------------------------
    @fallible
    def needs_pull(self, image: str, policy: PullPolicy) -> bool:
        return policy == "always" or parse_reference(image).text not in self.images

    @fallible
    def ensure_image(
        self,
        image: str,
        policy: PullPolicy,
        timeout: float,
        interrupt: Interrupt,
        check_registry: RegistryCheck = allow_any_registry,
    ) -> None:
        reference = parse_reference(image)
        interrupt.check()
        if policy != "always" and reference.text in self.images:
            return
        if policy == "never":
            raise ImageUnavailable(image_errors.never_pulled(reference.text))

        def pull(abort: Interrupt) -> None:
            check_registry(reference)
            self._pull(reference.text, abort)

        self._shared_pulls.share(reference.text, pull, timeout, interrupt)

    def _pull(self, reference: str, abort: Interrupt) -> None:
        with self._lock:
            self.pulls_begun += 1
        while not self.pulls_allowed.wait(_PULL_GATE_CHECK):
            abort.check()
        if reference not in self.registry:
            raise ImageUnavailable(image_errors.not_found(reference))
        self.pulls.append(reference)
        self.images[reference] = self.registry[reference]

    @fallible
    def resolve_user(self, name: str) -> User:
        container = self._find(name)
        return container_user.resolve(container.image.user, container.files.read_text)

    # -- containers --------------------------------------------------------------------------------
    @fallible
    def create(self, spec: RunSpec) -> None:
        reference = parse_reference(spec.image).text
        image = self.images.get(reference)
        if image is None:
            raise ImageUnavailable(image_errors.not_on_engine(reference))
        if not (spec.command or image.command):
            raise EngineRefused(start_errors.NO_COMMAND)
        self._check_size(spec)
        with self._lock:
            taken = self._containers.get(spec.name)
            if taken is not None:
                if taken.phase != "created":
                    raise ContainerConflict(f"the container {spec.name} has started already")
                self._remove(taken, force=False)
            container = self._new_container(replace(spec, labels=dict(spec.labels)), image)
            container.sandbox = self._containers.get(spec.sandbox or "")  # it stays the same one if it is renamed
            self._containers[spec.name] = container

    def _check_size(self, spec: RunSpec) -> None:
        if spec.cpu_millis > self._cpus * 1000:
            raise EngineRefused(start_errors.FEWER_CPUS)

    def _new_container(self, spec: RunSpec, image: FakeImage) -> FakeContainer:
        root = Path(tempfile.mkdtemp(dir=self._directory))
        return self._container_class(spec, image, root, self._intervals.idle_log)

    @fallible
    def prepare(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        pass

    @fallible
    def rename(self, name: str, new_name: str) -> None:
        with self._lock:
            container = self._find(name)
            if new_name in self._containers:
                raise ContainerConflict(f"the name {new_name} is taken")
            container.name = new_name
            self._containers[new_name] = self._containers.pop(name)
        container.notify()

    @fallible
    def start(self, name: str, *, first: bool = False) -> None:
        container = self._find(name)
        network, user = container.spec.network, container.image.user.partition(":")[0]
        if container.spec.sandbox is not None:
            self._check_sandbox(container)
        elif network is not None and network not in {taken for taken, _ in self._networks.values()}:
            raise NetworkMissing(f"network {network} not found")
        if user and not user.isdigit() and f"\n{user}:" not in f"\n{container.files.read_text('/etc/passwd')}":
            raise StartFailed(start_errors.UNKNOWN_USER)
        container.start()
        with self._lock:
            if self.keeps_usage:
                self._kept_usage.add(container.spec.name)

    def _check_sandbox(self, container: FakeContainer) -> None:
        sandbox = container.sandbox
        if sandbox is None or sandbox not in self._containers.values() or sandbox.phase != "running":
            raise SandboxRefused(f"cannot join the network of {container.spec.sandbox}")

    @fallible
    def wait_until_started(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        pass

    @fallible
    def inspect(self, name: str) -> Observation:
        container = self._find(name)
        seen = container.observe()
        self.check_available()  # a restart in progress may have ended the process
        with self._lock:
            kept = container.spec.name in self._kept_usage
        if seen.phase == "running":
            return replace(seen, keeps_usage=kept)
        lost = seen.lost or (seen.finished_at is not None and seen.finished_at <= self._began)
        return replace(seen, lost=lost, usage=container.usage if kept else None)

    @fallible
    def wait(self, name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        self._find(name).wait(interrupt, timeout, self.check_available)

    @fallible
    def stop(self, name: str, grace: float) -> None:
        self._find(name).stop(grace)

    @fallible
    def remove(self, name: str, *, force: bool = False) -> None:
        with self._lock:
            container = self._containers.get(name)
            if container is not None:
                self._remove(container, force=force)

    @fallible
    def withdraw(self, name: str) -> None:
        with self._lock:
            container = self._containers.get(name)
            if container is not None:
                container.mark_withdrawn()
                self._forget(container)

    def _remove(self, container: FakeContainer, *, force: bool) -> None:
        container.mark_removed(force=force)
        container.kill()
        self._forget(container)

    def _forget(self, container: FakeContainer) -> None:
        del self._containers[container.name]
        container.notify()
        self._kept_usage.discard(container.name)
        shutil.rmtree(container.root, ignore_errors=True)

    @fallible
    def list(self, labels: dict[str, str]) -> list[Observation]:
        with self._lock:
            found = list(self._containers.values())
        return [one.observe() for one in found if labels.items() <= one.spec.labels.items()]

    def follow_usage(self, name: str) -> FollowedUsage:
        followed = _FollowedContainer(name, self._containers.get(name), self.usage_followed)
        self.usage_followed.append(name)
        return followed

    @fallible
    def kept_usage(self) -> Sequence[str]:
        with self._lock:
            return list(self._kept_usage)

    @fallible
    def forget_usage(self, name: str) -> None:
        with self._lock:
            if not any(one.spec.name == name and one.phase == "running" for one in self._containers.values()):
                self._kept_usage.discard(name)

    def _find(self, name: str) -> FakeContainer:
        with self._lock:
            container = self._containers.get(name)
        if container is None:
            raise ContainerNotFound(f"No such container: {name}")
        return container

    # -- disk ----------------------------------------------------------------------------------------
    def disk_space(self) -> DiskSpace | None:
        return self.disk

    @fallible
    def disk_use(self, name: str, *, count_files: bool = False) -> DiskUse:
        written = [path for path in self._find(name).root.rglob("*") if not path.is_symlink()]
        return DiskUse(sum(path.stat().st_blocks * 512 for path in written), len(written) if count_files else None)

    # -- logs ----------------------------------------------------------------------------------------
    @fallible
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
        container = self._find(name)
        return self._logs(container, skip if tail is None else container.before_last_frames(tail), follow, interrupt)

    @contextmanager
    def _logs(self, container: FakeContainer, skip: int, follow: bool, interrupt: Interrupt) -> Iterator[Iterator[Frames | None]]:
        with interrupt.waking(container.notify):
            yield container.frames(skip, follow=follow, interrupt=interrupt, check=self.check_available)

    # -- files ---------------------------------------------------------------------------------------
    @fallible
    def stat(self, name: str, path: str) -> Stat | None:
        return self._find(name).files.stat(path)

    @fallible
    def real_path(self, name: str, path: str) -> str:
        files = self._find(name).files
        try:
            return files.real_path(path)
        except PathNotFound:
            return path

    @fallible
    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        container = self._find(name)
        return (container.files.directories() - container.image_directories).intersection(paths)

    @fallible
    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        self._find(name).files.unpack(directory, tar)

    @fallible
    def get(self, name: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._get(self._find(name), path)

    @contextmanager
    def _get(self, container: FakeContainer, path: str) -> Iterator[Iterator[bytes]]:
        yield container.files.pack(path)


class _FollowedContainer:
    """The usage of a container while it runs, if there is one."""

    def __init__(self, name: str, container: FakeContainer | None, followed: list[str]) -> None:
        self._name = name
        self._container = container
        self._followed = followed

    def latest(self) -> Usage | None:
        return self._container.sample if self._container else None

    def close(self) -> None:
        if self._name in self._followed:
            self._followed.remove(self._name)
