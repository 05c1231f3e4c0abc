"""What Orchestrator asks of a container engine. Knows no model, no Django and no event.

A container is addressed by its name, always, so that a rename fences out whoever knows the old one.
Every call raises `EngineUnavailable` where the engine does not answer or is not able to right now
(connection refused, time-out, 5xx that says nothing about the container); that is never a statement
about the job. Calls that take an `Interrupt` raise `Interrupted` soon after it is set, and so do all calls of a bound
engine (see `Engine.bound`): whatever they wait for, be it a connection, the answer or its end.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

from jobs.engine.pullable_reference import Reference
from jobs.interrupt import Interrupt

PullPolicy = Literal["missing", "always", "never"]
StreamName = Literal["stdout", "stderr"]

# Of every running container, over what its image has there: what the process writes into them ends with it.
MOUNTED_DIRECTORIES: Final = ("/dev", "/proc", "/sys")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A container to be made."""

    name: str
    image: str
    command: tuple[str, ...] | None  # exact argument vector in place of entrypoint and command; None: the image's own
    environment: dict[str, str]
    workspace: str  # absolute; the working directory
    cpu_millis: int  # thousandths of a core
    memory_mib: int  # hard limit, no swap
    network: str | None  # name of the bridge network; None: no network
    labels: dict[str, str]
    stop_grace_seconds: int
    log_limit_bytes: int  # the engine keeps so much of the log, in two files


Phase = Literal["created", "running", "ended"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What the engine says of a container. Times are the engine's own clock, aware, UTC."""

    name: str
    phase: Phase  # created: never started; ended: started once and runs no more
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None  # set when ended
    oom_killed: bool = False  # Docker misses a kill within about 40 ms of the start (measured)
    lost: bool = False  # it had ended when the engine was last started: ended by that, for all that can be known
    wrong_platform: str = ""  # if a program could not be executed and its image is for another architecture: which
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frame:
    """One write of the process, as the engine kept it. A line may span several frames."""

    stream: StreamName
    time: str  # RFC 3339 with nanoseconds, as the engine wrote it
    data: bytes


@dataclass(frozen=True, slots=True)
class Stat:
    """A path inside a container, its last component not followed."""

    size: int
    kind: Literal["file", "directory", "symlink", "other"]


@dataclass(frozen=True, slots=True)
class User:
    """Who the image's process runs as, resolved in the container's own /etc/passwd."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine's own account of itself."""

    id: str
    name: str
    cpus: float
    memory_bytes: int
    warnings: tuple[str, ...]  # what limits it cannot enforce, one sentence each
    clock: datetime


RegistryCheck = Callable[[Reference], None]  # raises `ImageUnavailable` where nothing may be pulled from there


def any_registry(reference: Reference) -> None:
    """A `RegistryCheck` that lets every registry be asked."""


class Engine(Protocol):
    """One container engine. Thread-safe: every thread of a worker shares one instance."""

    schedules: bool  # it places containers itself: admission by Node rows is off
    tells_streams: bool  # it tells stdout from stderr

    def bound(self, interrupt: Interrupt, patience: float | None = None) -> "Engine":
        """Return this engine with calls that raise `Interrupted` soon after `interrupt` is set.

        The engine may still do what such a call asked for. With `patience` they raise `EngineSilent` after so many
        seconds without a byte.
        """

    def info(self) -> EngineInfo: ...

    # -- networks ------------------------------------------------------------------------------
    def create_network(self, name: str, labels: dict[str, str]) -> str:
        """Make a bridge network on which containers cannot reach one another; its id."""

    def find_network(self, network_id: str) -> str | None:
        """The name of that network, None where there is none."""

    def list_networks(self, labels: dict[str, str]) -> dict[str, str]:
        """id → name of the networks with these labels."""

    def remove_network(self, network_id: str) -> None:
        """Remove it; no error where it is gone."""

    # -- images --------------------------------------------------------------------------------
    def ensure_image(
        self,
        image: str,
        policy: PullPolicy,
        timeout: float,
        interrupt: Interrupt,
        check_registry: RegistryCheck = any_registry,
    ) -> None:
        """Have the image here as `policy` says; concurrent pulls of one image are one pull.

        `timeout` is in seconds. `check_registry` is called before each pull, and not where the image is here already; what it
        raises comes out. Raises `ImageUnavailable`, never in the registry's words. Somebody may delete it at any moment:
        that it is still here is for `create` to say.
        """

    def resolve_user(self, name: str) -> User:
        """The user that the created container `name` will run as (root where it cannot be told)."""

    # -- containers ----------------------------------------------------------------------------
    def create(self, spec: RunSpec) -> None:
        """Make the container; it does not run. One of this name that never started is replaced.

        Raises `ImageUnavailable`, `EngineRefused` (the description is at fault), `StartRefused` (it is not clear who is),
        `NetworkMissing`, `ContainerConflict` (one of this name has started).
        """

    def rename(self, name: str, new_name: str) -> None:
        """From now on `name` answers `ContainerNotFound`. Raises that, or `ContainerConflict`."""

    def start(self, name: str) -> None:
        """Run the process, under an init and without a shell: a program that does not exist is exit code 127, one that the
        kernel cannot execute 126.

        Raises `StartFailed` (the job is at fault), `StartRefused` (it is not clear who is), `StartLost`, `NetworkMissing`,
        `ContainerNotFound`; started already: `ContainerConflict` (it is never run twice).
        Of calls at the same moment more than one may succeed. After `EngineUnavailable` it may run or not: inspect.
        """

    def inspect(self, name: str) -> Observation:
        """Raises `ContainerNotFound`."""

    def wait(self, name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        """Return when the process has ended, or after `timeout` seconds. Raises `ContainerNotFound`, `Interrupted`."""

    def stop(self, name: str, grace: float) -> None:
        """Send SIGTERM to every process of the container, SIGKILL after `grace` seconds, and return when all have ended.

        The exit code is that of the process that was started, or 137 if any had to be killed. No error where it has ended or
        never started.

        Raises `ContainerNotFound`.
        """

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove it with its anonymous volumes; no error where it is gone. Running and not `force`: `ContainerConflict`."""

    def list(self, labels: dict[str, str]) -> list[Observation]:
        """All containers with these labels, whatever their state (exit codes, and whether they are lost, may be left out)."""

    # -- logs ----------------------------------------------------------------------------------
    def logs(self, name: str, *, skip: int, follow: bool, interrupt: Interrupt) -> AbstractContextManager[Iterator[Frame | None]]:
        """The frames from the log's start, both streams in file order, without the first `skip`.

        Following, the iterator ends when the process has ended; None says, once per silence, that nothing
        came for 250 ms, so that the reader may put away what it holds. Leaving the context frees the
        connection. Raises `ContainerNotFound`; while reading `Interrupted`, `EngineUnavailable` (the stream
        broke off: read again), `EngineRefused` (the engine cannot read its own log: there is no more).
        """

    # -- files ---------------------------------------------------------------------------------
    def stat(self, name: str, path: str) -> Stat | None:
        """None where there is no such path. Parents are resolved inside the container's root."""

    def real_path(self, name: str, path: str) -> str:
        """`path` with its symbolic links followed inside the container, also where they lead to nothing; not a circle of them."""

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        """Those of `paths`, all of them real, that this container has and its image has not."""

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        """Unpack a tar stream into an existing directory. Raises `PathNotFound`, `EngineRefused`."""

    def get(self, name: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """A tar stream with the one path. Raises `PathNotFound`."""
