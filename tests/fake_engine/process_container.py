"""A container of the fake engine: a process on this machine in a directory of its own."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final

from jobs.engine.protocol import Frame, Frames, Observation, Phase, RunSpec, StreamName, Usage
from jobs.errors import ContainerConflict, ContainerNotFound
from jobs.interrupt import Interrupt
from tests.fake_engine.directory_files import FileTree
from tests.helpers.log_frames import alone

ARCHITECTURE: Final = "amd64"  # of the fake engine, whatever this machine has
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PIECE_BYTES: Final = 16 * 1024  # Docker cuts longer lines into pieces of this size
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # exit codes
_POLL_SECONDS: Final = 0.02
_CPU_TIMES: Final = slice(11, 15)  # of it and its ended children: the indexes in /proc/<pid>/stat after the name (proc(5))
_PIPE_GRACE: Final = 5.0  # seconds to read the rest of what an ended process has printed


@dataclass(frozen=True, slots=True)
class FakeImage:
    """The configuration and files of an image."""

    command: tuple[str, ...] | None = ("/bin/sh",)
    user: str = ""
    architecture: str = ARCHITECTURE
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"PATH": PATH}))
    files: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType(
            {
                "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
                "/etc/group": "root:x:0:\nnobody:x:65534:\n",
                "/tmp/.keep": "",
            }
        )
    )
    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # symbolic links and their targets


class FakeContainer:
    """A thread-safe container. Every change wakes the calls that wait for one."""

    merges_streams = False  # its log has all in stdout

    def __init__(self, spec: RunSpec, image: FakeImage, root: Path, max_pause: float) -> None:
        """`max_pause` is for followed logs, in seconds. Raises `EngineRefused` if the workspace cannot be a directory."""
        self.name = spec.name
        self.spec = spec
        self.image = image
        self.root = root
        self.sandbox: FakeContainer | None = None  # whose network it joins
        self._max_pause = max_pause
        self.files = FileTree(root)
        for path, text in image.files.items():
            self.files.add_file(path, text)
        for path, target in image.links.items():
            self.files.add_link(path, target)
        self.image_directories = frozenset(self.files.directories())
        self._workspace = self.files.make_directory(spec.workspace)
        self._changed = threading.Condition()
        self._created_at = datetime.now(UTC)
        self._started_at: datetime | None = None
        self._finished_at: datetime | None = None
        self._exit_code: int | None = None
        self._oom_killed = False
        self.usage: Usage | None = None
        self._peak_memory = 0
        self.sample: Usage | None = None  # of the running process
        self._removed = False
        self._stopping = False
        self._overdue = False
        self._frames: list[Frame] = []
        self._process: subprocess.Popen[bytes] | None = None

    def observe(self) -> Observation:
        with self._changed:
            return Observation(
                name=self.name,
                phase=self.phase,
                created_at=self._created_at,
                started_at=self._started_at,
                finished_at=self._finished_at,
                exit_code=self._exit_code,
                oom_killed=self._oom_killed,
                wrong_platform=self._wrong_platform(),
                labels=self.spec.labels,
            )

    @property
    def phase(self) -> Phase:
        if self._started_at is None:
            return "created"
        return "running" if self._finished_at is None else "ended"

    def _wrong_platform(self) -> str:
        wrong = self._exit_code == _NOT_EXECUTABLE and self.image.architecture != ARCHITECTURE
        return f"image is for {self.image.architecture}, node is {ARCHITECTURE}" if wrong else ""

    def notify(self) -> None:
        """Wake the calls that wait for a change."""
        with self._changed:
            self._changed.notify_all()

    # -- the process -----------------------------------------------------------------------------
    def start(self) -> None:
        """Start the process. Raises `ContainerConflict` if it has been started before."""
        with self._changed:
            if self._started_at is not None:
                raise ContainerConflict(f"the container {self.name} has started already")
            if self._removed:
                raise ContainerNotFound(f"No such container: {self.name}")
            self._started_at = datetime.now(UTC)
            command = self.spec.command or self.image.command or ()
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=self.files.host(self._workspace),
                    env={**self.image.environment, **self.spec.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT if self.merges_streams else subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:  # worded as by the init of Docker's containers
                reason = "not found" if isinstance(error, FileNotFoundError) else (error.strerror or "").lower()
                stream: StreamName = "stdout" if self.merges_streams else "stderr"
                self._frames.append(Frame(stream, _now(), f"exec {command[0]}: {reason}\n".encode()))
                self._end(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE)
                return
        threading.Thread(target=self._attend, args=(self._process,), name=f"fake {self.name}", daemon=True).start()

    def stop(self, grace: float) -> None:
        """See `Engine.stop`."""
        if self._process is None or self.phase != "running":
            return
        self._stopping = True
        self._signal_all(self._process, signal.SIGTERM)
        if not self.wait_for(lambda: self.phase != "running", grace):
            self._overdue = True
            self.kill()

    def kill(self) -> None:
        """Kill all processes and wait for their end."""
        if self._process is None:
            return
        self._signal_all(self._process, signal.SIGKILL)
        self.wait_for(lambda: self.phase != "running", None)

    def mark_removed(self, *, force: bool) -> None:
        """Prevent further starts. Raises `ContainerConflict` if it is running, unless `force` is set."""
        with self._changed:
            if self.phase == "running" and not force:
                raise ContainerConflict(f"the container {self.name} is running")
            self._removed = True

    def mark_withdrawn(self) -> None:
        """Prevent starts. Raises `ContainerConflict` if it has run."""
        with self._changed:
            if self.phase in ("running", "ended"):
                raise ContainerConflict(f"the process of the container {self.name} has run")
            self._removed = True

    def wait(self, interrupt: Interrupt, timeout: float | None, check: Callable[[], None]) -> None:
        """See `Engine.wait`. `check` is called at each change, and may raise."""

        def ended() -> bool:
            interrupt.check()
            check()
            return self.phase != "running"

        with interrupt.waking(self.notify):
            self.wait_for(ended, timeout)

    def before_last_frames(self, count: int) -> int:
        """Return the number of frames before the last `count`."""
        with self._changed:
            return max(0, len(self._frames) - count)

    def frames(self, skip: int, *, follow: bool, interrupt: Interrupt, check: Callable[[], None]) -> Iterator[Frames | None]:
        """See `Engine.logs`. `check` is called at each change, and may raise."""
        position = skip

        def more() -> bool:
            interrupt.check()
            check()
            return position < len(self._frames) or self.phase != "running" or not follow

        while True:
            if not self.wait_for(more, self._max_pause):
                yield None
                self.wait_for(more, None)
            if position >= len(self._frames):
                return
            yield alone(self._frames[position])
            position += 1

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Return as soon as a change makes the condition true, or False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def _attend(self, process: subprocess.Popen[bytes]) -> None:
        """Read the output and watch the memory until the process ends; then kill what it left running, as a container does."""
        pipes: list[tuple[StreamName, IO[bytes] | None]] = [("stdout", process.stdout), ("stderr", process.stderr)]
        readers = [threading.Thread(target=self._read, args=(stream, pipe), daemon=True) for stream, pipe in pipes if pipe]
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch_memory, args=(process, ended), daemon=True)
        for thread in (*readers, watcher):
            thread.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet, so that the process group keeps its id
        while self._stopping and _group_runs(process.pid):  # `stop` kills them after the grace
            time.sleep(_POLL_SECONDS)
        self._signal_all(process, signal.SIGKILL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if self._overdue:  # the exit code that Docker reports
            code = -signal.SIGKILL
        ended.set()
        watcher.join()
        for reader in readers:
            reader.join(_PIPE_GRACE)
        with self._changed:
            self.usage = Usage(cpu_seconds=used.ru_utime + used.ru_stime, peak_memory_bytes=self._peak_memory)
            self._end(128 - code if code < 0 else code)

    def _end(self, exit_code: int) -> None:
        self._exit_code, self._finished_at = exit_code, datetime.now(UTC)
        self._changed.notify_all()

    @staticmethod
    def _signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    def _read(self, stream: StreamName, pipe: IO[bytes]) -> None:
        """Cut the output into frames as Docker does: at line feeds, and every 16 KiB of a long line."""
        held, moment = b"", ""
        with pipe:
            while data := os.read(pipe.fileno(), _PIECE_BYTES):
                held += data
                while held:
                    moment = moment or _now()
                    end = held.find(b"\n", 0, _PIECE_BYTES) + 1
                    if not end and len(held) < _PIECE_BYTES:
                        break
                    piece = held[: end or _PIECE_BYTES]
                    held = held[len(piece) :]
                    self._append(Frame(stream, moment, piece))
                    moment = "" if end else moment
            if held:
                self._append(Frame(stream, moment, held))

    def _append(self, frame: Frame) -> None:
        with self._changed:
            self._frames.append(frame)
            self._changed.notify_all()

    def _watch_memory(self, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
        limit = self.spec.memory_mib * 1024**2
        while not ended.wait(_POLL_SECONDS):
            resident = _resident_bytes(process.pid)
            self._peak_memory = max(self._peak_memory, resident)
            if resident:  # not ended yet
                self.sample = Usage(_cpu_seconds(process.pid), self._peak_memory)
            if resident > limit:
                self._oom_killed = True
                self._signal_all(process, signal.SIGKILL)
                return


def _resident_bytes(pid: int) -> int:
    """Return the memory of a process and its children; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident_bytes(int(child)) for child in children)


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children, ended ones included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    ticks = sum(int(field) for field in fields[_CPU_TIMES])
    return ticks / os.sysconf("SC_CLK_TCK") + sum(_cpu_seconds(int(child)) for child in children)


def _group_runs(group: int) -> bool:
    """Return whether a process group has a process other than zombies."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, theirs = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(theirs) == group and state not in ("Z", "X"):
            return True
    return False


def _now() -> str:
    """Return the time as Docker writes it: RFC 3339 with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
