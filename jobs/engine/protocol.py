"""The contract of a container engine. It knows no model, no Django and no event.

A container is always addressed by its name, so that a rename fences out callers that know only the old name.

Errors that every call may raise:

- `EngineUnavailable`: the engine does not answer, or cannot do it right now (connection refused, time-out, an error
  that says nothing about the container). It never says anything about the job.
- `Interrupted`: soon after the call's `Interrupt` was set, or that of the bound engine (see `Engine.bound`), whatever the
  call is waiting for.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import methodcaller
from typing import Final, Literal, Protocol

from jobs.engine.pullable_reference import Reference
from jobs.interrupt import Interrupt

MAX_RESERVE_BYTES: Final = 2 * 1024**3

PullPolicy = Literal["missing", "always", "never"]
StreamName = Literal["stdout", "stderr"]

# Mounted over what the image has there, in every running container. Files that the process writes there are lost at its end.
MOUNTED_DIRECTORIES: Final = ("/dev", "/proc", "/sys")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The description of a container to be created."""

    name: str
    image: str
    command: tuple[str, ...] | None  # exact argument vector in place of entrypoint and command; None: the image's own
    environment: dict[str, str]
    workspace: str  # absolute path of the working directory
    cpu_millis: int  # thousandths of a core
    memory_mib: int  # hard limit, without swap
    network: str | None  # name of the bridge network; None: no network
    labels: dict[str, str]
    stop_grace_seconds: int
    log_limit_bytes: int  # what the engine keeps of the log, in two files of half of it
    disk_limit_bytes: int | None = None  # the engine keeps it from writing much more to its disk, if it can; None: no limit
    timeout_seconds: int | None = None  # the caller stops it by then; an engine may do so later, as a last resort
    has_inputs: bool = True  # files may be put into it before it starts
    has_outputs: bool = True  # files may be read from it after it has ended
    pull_policy: PullPolicy = "missing"  # for an engine that pulls its image when it starts it
    sandbox: str | None = None  # name of the sandbox whose network it joins, in place of `network`


Phase = Literal["created", "starting", "running", "ended"]


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """What kind of engine this is. It never changes, and is known without a call."""

    schedules: bool = False  # it decides where and when a container runs, and starts it on its own time
    merges_streams: bool = False  # its log does not tell stderr from stdout: all is stdout
    makes_workspace: bool = False  # the workspace is there without `put`
    reaches_only_workspace: bool = False  # `put`, `get` and `stat` find nothing else, and nothing of the image is in it
    ignores_image_groups: bool = False  # a process has its user's own group, or root's, whatever group its image sets
    pulls_at_start: bool = False  # it sees an image only when a container starts: what is wrong with it is found out then
    finds_log_positions: bool = False  # its `logs` takes `after`, and says where frames may be missing
    keeps_carriage_returns: bool = True  # its log has those before line feeds
    limits_disk: bool = False  # it ends by itself a container that has written more than its limit: nothing has to be measured


@dataclass(frozen=True, slots=True)
class Usage:
    """What all processes of a container have used, as far as it is known."""

    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None  # as the limit counts it, so with cached files


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of a container. Times are those of the engine's clock, in UTC."""

    name: str
    phase: Phase  # created: `start` was not called; starting: it was, but no process runs yet; ended: its process has ended
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None  # set if ended
    oom_killed: bool = False  # Docker misses a kill within about 40 ms of the start (measured)
    lost: bool = False  # the engine or its host has ended it, or may have: it was restarted, say
    over_disk_limit: bool = False  # the engine has ended it because it had written too much
    end_cause: str = ""  # what the engine says about either, as a sentence for clients
    waiting: str = ""  # if starting: what for, as a phrase
    usage: Usage | None = None  # if ended, and the engine has kept it
    keeps_usage: bool = False  # if running, and the engine will know its usage after the end
    wrong_platform: str = ""  # if a program could not be executed, and its image is for another architecture: the two names
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def has_run(self) -> bool:
        """Whether its process has begun to run. It may have ended."""
        return self.phase in ("running", "ended")


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of a log: a whole line, or a part of a long one."""

    stream: StreamName
    time: str  # RFC 3339 with nanoseconds, as the engine wrote it
    data: bytes


@dataclass(frozen=True)
class Frames:
    """Frames of one stream, in the order of the log: one or more, or none after a gap.

    A log is passed on in these: an object for each frame would take as long as everything else that is done with it.
    """

    stream: StreamName
    times: Sequence[str]
    data: Sequence[bytes]  # as many as times
    after_gap: bool = False  # whether the engine says that frames before these may be missing

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[Frame]:
        for time, data in zip(self.times, self.data, strict=True):
            yield Frame(self.stream, time, data)

    def part(self, start: int, end: int | None = None) -> "Frames":
        """Return some of these frames, like a slice of a sequence."""
        return Frames(self.stream, self.times[start:end], self.data[start:end])

    @cached_property
    def end_in_line_feeds(self) -> bool:
        """Whether each of them ends in a line feed."""
        return all(map(_ends_in_line_feed, self.data))


_ends_in_line_feed = methodcaller("endswith", b"\n")


@dataclass(frozen=True, slots=True)
class LogPosition:
    """A place in the log of an engine that merges the streams: behind the last of some frames in a row with the same time."""

    time: str
    frames: int  # with this time

    def moved(self, times: Sequence[str]) -> "LogPosition":
        """Return the place after the next frames, of which there is at least one."""
        last = times[-1]
        alike = next((number for number, time in enumerate(reversed(times)) if time != last), len(times))
        return LogPosition(last, alike + self.frames if alike == len(times) and last == self.time else alike)


START_OF_LOG: Final = LogPosition("", 0)


@dataclass(frozen=True, slots=True)
class Stat:
    """The file or directory at a path inside a container. For a symbolic link, this describes the link and not its target."""

    size: int  # bytes
    kind: Literal["file", "directory", "symlink", "other"]


@dataclass(frozen=True, slots=True)
class User:
    """The numeric user and group of a container's process."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine's description of itself and its host or hosts."""

    id: str
    name: str
    cpus: float  # cores, of all its hosts; 0: unknown, which only an engine that schedules may say
    memory_bytes: int  # the same
    warnings: tuple[str, ...]  # one sentence for each limit that the engine cannot enforce
    clock: datetime
    refusal: str = ""  # why no job can start as the worker is configured
    largest_cpus: float | None = None  # the most that one container can have, if the engine schedules; None: unknown
    largest_memory_bytes: int | None = None  # the same


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The disk on which an engine keeps its containers."""

    size: int  # bytes
    used: int  # bytes
    free: int  # bytes that a container may still use
    files: int = 0  # how many it may have in all; 0: as many as fit
    files_used: int = 0

    @property
    def reserve(self) -> int:
        """Return how many bytes should stay free, because more than jobs needs them: the engine itself, images, logs."""
        return min(self.size // 20, MAX_RESERVE_BYTES)

    @property
    def has_room_for_images(self) -> bool:
        """Whether images may be pulled: jobs are ended before the reserve is used, and an image must not bring that about."""
        return self.free >= 2 * self.reserve

    @property
    def file_reserve(self) -> int:
        """Return how many files should stay free."""
        return self.files // 50

    @property
    def is_short_of_bytes(self) -> bool:
        return self.free < self.reserve

    @property
    def is_short_of_files(self) -> bool:
        return self.files - self.files_used < self.file_reserve


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a container occupies of its engine's disk besides its image and its log."""

    size: int  # bytes
    files: int | None = None  # with directories; None: not counted


RegistryCheck = Callable[[Reference], None]  # raises `ImageUnavailable` if nothing may be pulled from that registry


def allow_any_registry(reference: Reference) -> None:
    """Accept every registry; a `RegistryCheck`."""


class FollowedUsage(Protocol):
    """What a container has used that is followed while it runs. Thread-safe."""

    def latest(self) -> Usage | None:
        """Return what the engine said last; None if it has not said anything yet."""

    def close(self) -> None:
        """Stop following it. What is known stays known."""


class Engine(Protocol):
    """One container engine. Thread-safe: all threads of a worker share one instance."""

    @property
    def traits(self) -> EngineTraits:
        """What kind of engine this is."""

    def bound(self, interrupt: Interrupt, max_silence: float | None = None) -> "Engine":
        """Return the same engine with calls that raise `Interrupted` soon after `interrupt` is set.

        The engine may still do what an interrupted call asked for. With `max_silence` its calls raise `EngineSilent` after
        that many seconds without a byte.
        """

    def info(self) -> EngineInfo:
        """Return the engine's description of itself."""

    # -- networks ------------------------------------------------------------------------------
    def create_network(self, name: str, labels: dict[str, str]) -> str:
        """Create a bridge network on which containers cannot reach one another, and return its id."""

    def find_network(self, network_id: str) -> str | None:
        """Return the name of the network with exactly this id, or None if there is none."""

    def list_networks(self, labels: dict[str, str]) -> dict[str, str]:
        """Return the ids and names of all networks that have these labels."""

    def remove_network(self, network_id: str) -> None:
        """Remove a network; do nothing if it does not exist. Raise `ContainerConflict` if a container uses it."""

    def protect_network(self, network_id: str, owner: str) -> None:
        """Keep the containers of a network from the node itself and from denied networks.

        Install the firewall rules for that if they are missing, for example because the firewall was restarted; it costs next to
        nothing while they are in place. `owner` is the installation that has made the network. Raise nothing: what cannot be done
        is among the warnings of `info`.
        """

    def remove_unused_rules(self, owner: str, network_ids: Collection[str]) -> None:
        """Remove the owner's firewall rules of networks that do not exist any more, apart from those of `network_ids`."""

    # -- sandboxes -----------------------------------------------------------------------------
    def create_sandbox(self, name: str, network: str, labels: dict[str, str]) -> None:
        """Start a sandbox: a container on a bridge network that does nothing, and whose network another one may join.

        It is found, renamed and removed like other containers. Raise `EngineRefused` if this engine can have none. A failed
        call may leave one that does not run.
        """

    def is_sandbox_clean(self, name: str) -> bool:
        """Return whether a running sandbox is as it was at its start, so that another container may join it.

        A container that has joined it can change only its files with the host's name and addresses and the name servers. A
        sandbox that is not clean ends. Raise `ContainerNotFound`, and `EngineSilent` if the engine is overloaded or waits for
        the start of a sandbox that has ended.
        """

    # -- images --------------------------------------------------------------------------------
    def needs_pull(self, image: str, policy: PullPolicy) -> bool:
        """Return whether `ensure_image` has to be called before `create`.

        An image that was found once is not looked for again: if it was deleted, `create` raises `ImageUnavailable`, and the next
        call looks again.
        """

    def ensure_image(
        self,
        image: str,
        policy: PullPolicy,
        timeout: float,
        interrupt: Interrupt,
        check_registry: RegistryCheck = allow_any_registry,
    ) -> None:
        """Pull an image if `policy` requires it. Concurrent pulls of one image share a single pull.

        `timeout` is in seconds. `check_registry` is called right before each pull, and its errors are passed on.

        Raise `ImageUnavailable`, whose text never contains the registry's own words. The image may be deleted at any moment
        afterwards, in which case `create` raises it.
        """

    def resolve_user(self, name: str) -> User:
        """Return the user that the process of a created container will run as; root if it cannot be determined.

        Raise `StartFailed` if Linux would refuse its arguments, including those of the image.
        """

    # -- containers ----------------------------------------------------------------------------
    def create(self, spec: RunSpec) -> None:
        """Create a container without starting it. Replace one of the same name that never started.

        Raise `ImageUnavailable`, `NetworkMissing`, `EngineRefused` (the job is at fault), `EngineInTrouble` (the engine is),
        `StartRefused` (either may be), and `ContainerConflict` if `start` was called for a container of this name.
        """

    def prepare(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        """Return when files can be put into a created container.

        An engine that schedules calls `waiting_for` with a phrase whenever it has another reason to wait; other engines return
        at once. Raise what `wait_until_started` raises.
        """

    def rename(self, name: str, new_name: str) -> None:
        """Rename a container; calls with its old name raise `ContainerNotFound` from then on.

        Raise `ContainerNotFound`, and `ContainerConflict` if the new name is taken.
        """

    def start(self, name: str, *, first: bool = False) -> None:
        """Start the process of a created container, under an init and without a shell.

        With `first` the container is not looked at before. It promises that the caller has created the container, has called
        `resolve_user`, and that no start was requested under this name before, not even in vain.

        A program that does not exist ends with exit code 127, one that the kernel cannot execute with 126.

        No process is started twice, but several simultaneous calls may succeed. After `EngineUnavailable` the process may or
        may not run: call `inspect`.

        Raise `ContainerNotFound`, `NetworkMissing`, `StartFailed` (the job is at fault), `EngineInTrouble` (the engine is),
        `StartRefused` (either may be), `SandboxRefused` (its sandbox may be), `StartLost`, and `ContainerConflict` if the
        container has started before.
        """

    def wait_until_started(self, name: str, waiting_for: Callable[[str], None], interrupt: Interrupt) -> None:
        """Return when the process of a container whose start was requested has begun to run, or has ended.

        An engine that schedules may need hours, and calls `waiting_for` with a phrase whenever it has another reason to wait;
        with other engines the process runs when `start` returns.

        Raise `ContainerNotFound` if the container was removed before it ran, or renamed, `StartLost` if it was removed and may
        have run, `ImageUnavailable`, and `StartFailed`.
        """

    def inspect(self, name: str) -> Observation:
        """Return the state of a container. Raise `ContainerNotFound`."""

    def wait(self, name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        """Return when the process is not running, at the latest after `timeout` seconds. Raise `ContainerNotFound`."""

    def stop(self, name: str, grace: float) -> None:
        """Send SIGTERM to all processes of a container, SIGKILL after `grace` seconds, and return when all have ended.

        The exit code is that of the process that was started, or 137 if any process had to be killed. Do nothing if the
        container has ended or never started. Raise `ContainerNotFound`.
        """

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a container and its anonymous volumes; do nothing if it does not exist.

        Raise `ContainerConflict` if it is starting or running, unless `force` is set. One that is starting is not run any more.
        """

    def withdraw(self, name: str) -> None:
        """Remove a container whose start has failed, so that its process never runs; do nothing if it does not exist.

        An engine that schedules may try again by itself meanwhile. So this may take as long as a host needs to end a container.

        Raise `ContainerConflict` if the process has run, or may have: `inspect` then says so, too. Raise `EngineUnavailable` also
        if its host does not say whether it has.
        """

    def list(self, labels: dict[str, str]) -> list[Observation]:
        """Return all containers that have these labels, in any phase. Exit codes, `lost` and `usage` may be missing."""

    # -- usage ---------------------------------------------------------------------------------
    def follow_usage(self, name: str) -> FollowedUsage:
        """Follow the usage of a running container that the engine does not keep (see `Observation.keeps_usage`).

        Return at once, and never fail: it is known about once a second if the engine reports it, and more seldom if many
        containers are followed. To be closed.
        """

    def kept_usage(self) -> Sequence[str]:
        """Return the names under which containers were created whose usage is kept, whatever has become of them.

        `remove` forgets the usage of a container that was never renamed. Names of other programs' containers may be among them.
        """

    def forget_usage(self, name: str) -> None:
        """Remove the usage of a container that was created under this name, unless it is running."""

    # -- disk ----------------------------------------------------------------------------------
    def disk_space(self) -> DiskSpace | None:
        """Return how full the engine's disk is, or None if that cannot be seen from here.

        Takes a few microseconds and no call to the engine, except after its restart. Never fails.
        """

    def disk_use(self, name: str, *, count_files: bool = False) -> DiskUse:
        """Measure what a container has written: to its own layer, to volumes of its image, to files of which only it has a name.

        Takes the longer the more files there are: about 1.5 s of CPU time for a million.

        Raise `ContainerNotFound`, `Unmeasurable`, and `EngineUnavailable` if it cannot be measured now for another reason.
        """

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
        """Open a log and yield its frames, both streams in the order of the engine's file, without the first `skip`.

        With `tail`, yield only the last `tail` frames; `skip` must then be 0.

        With `after`, which only an engine takes that finds log positions, yield what follows that place. If the engine does not
        have the frames before it any more, yield all that it has, marked as after a gap. `skip` must be 0, and `tail` None.

        With `follow` the iterator ends when the process has ended, and yields None once per pause of at least 250 ms, so that
        the reader can commit what it has. Leaving the context closes the connection.

        Raise `ContainerNotFound`. Reading raises `EngineUnavailable` if the stream breaks off (read again), and
        `EngineRefused` if the engine cannot read its own log (no more frames can be read).
        """

    # -- files ---------------------------------------------------------------------------------
    def stat(self, name: str, path: str) -> Stat | None:
        """Return what is at a path, or None. Links in its parents are followed inside the container's root."""

    def real_path(self, name: str, path: str) -> str:
        """Return a path with its symbolic links resolved inside the container, even if they lead to nothing.

        Links that form a cycle are left unresolved, and so is what follows the first thousand components.
        """

    def added_directories(self, name: str, paths: Iterable[str]) -> set[str]:
        """Return those of `paths` (real paths) that are directories of the container but not of its image."""

    def put(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        """Unpack a tar stream into an existing directory.

        Errors that `tar` raises are passed on unchanged, once the engine has stopped unpacking. What it has unpacked by then
        can be replaced by another call.

        Raise `ContainerNotFound`, `PathNotFound`, and `EngineRefused` if the archive cannot be unpacked there.
        """

    def get(self, name: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open a tar stream of the file or directory at a path. Raise `ContainerNotFound`, `PathNotFound`."""
