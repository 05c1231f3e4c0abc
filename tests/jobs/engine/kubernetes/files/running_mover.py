"""The mover as a plain process on this machine, in place of a container of a pod."""

import platform
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.engine.kubernetes.files import FilesOfPod, PodFiles, Tokens, mover_program, new_tokens
from jobs.engine.kubernetes.files.mover_client import MoverClient
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.waiting import wait_for

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
PROGRAM = Path(mover_program.__file__).parent / "mover" / f"mover-{ARCHITECTURE}"
WORKSPACE = "/workspace"


@dataclass(frozen=True)
class RunningMover:
    process: subprocess.Popen[bytes]
    port: int
    directory: Path  # of this machine, that is the workspace
    tokens: Tokens

    def files(self, interrupt: Interrupt | None = None, workspace: str = WORKSPACE, **intervals: Any) -> PodFiles:
        options = EngineIntervals(**{"connect": 2.0, **intervals})
        return PodFiles(FilesOfPod("127.0.0.1", workspace, self.tokens, self.port), options, interrupt)

    def client(self, **tokens: str) -> MoverClient:
        """Return a client with these tokens in place of the right ones."""
        intervals = EngineIntervals(connect=2.0)
        return MoverClient("127.0.0.1", replace(self.tokens, **tokens), intervals, Interrupt(), port=self.port)

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """A connection of anyone, without a token."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=20)) as connection:
            yield connection

    def raw(self, request: bytes) -> bytes:
        """Send bytes and return all that is answered."""
        with self.connection() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)

    def head(self, line: str, *more: str) -> bytes:
        """Return the head of a request of the worker."""
        return "\r\n".join([line, f"Authorization: Bearer {self.tokens.asked}", *more, "", ""]).encode()

    def memory(self) -> int:
        """Return how many bytes of memory the mover has used at most, with all of its connections."""
        own = self.process.pid
        listed = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return sum(_peak(process) for process in [str(own), *listed])


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    try:
        while more := connection.recv(65536):
            received += more
    except ConnectionResetError:
        pass
    return received


def _peak(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_mover(
    directory: Path, *, role: str = "inputs", workspace: str = WORKSPACE, port: int | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[RunningMover]:
    """Run the mover on a workspace and secrets in `directory`. `prefix` starts it by another program."""
    files, secrets = directory / "files", directory / "secrets"
    for made in (files, secrets):
        made.mkdir(exist_ok=True)
    files.chmod(0o777)
    tokens = new_tokens()
    for name in ("asked", "answered"):
        (secrets / name).write_text(getattr(tokens, name))
    port = port or free_port()
    process = subprocess.Popen([*prefix, str(PROGRAM), role, str(port), workspace, str(files), str(secrets)])
    try:
        yield RunningMover(process, port, files, tokens)
    finally:
        process.kill()
        process.wait(timeout=20)


def wait_until_listening(mover: RunningMover) -> None:
    """Return when the mover accepts connections."""

    def listens() -> bool:
        try:
            with mover.connection():
                return True
        except ConnectionRefusedError:
            return False

    wait_for(listens)
