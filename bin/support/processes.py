"""Processes of this machine, found by what /proc says of them, and ended."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def process_ids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def processes_with_argument(beginning: str) -> list[int]:
    """The processes that were started with an argument that begins so."""
    mark = b"\0" + os.fsencode(beginning)
    return [pid for pid in process_ids() if mark in read(f"/proc/{pid}/cmdline")]


def read(path: str) -> bytes:
    """What is in a file of /proc; nothing where its process is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def processes_with_variable(name: str, value: str) -> list[int]:
    """The processes that were started with this environment variable."""
    mark = os.fsencode(f"{name}={value}")
    return [pid for pid in process_ids() if mark in read(f"/proc/{pid}/environ").split(b"\0")]


def end(pid: int, seconds: float) -> None:
    """Ask the process to stop, kill it after so many seconds, return when it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while runs(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie, which is its parent's affair."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])
