"""Processes of this machine, found by what /proc says of them, and ended."""

import os
import signal
import subprocess
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


def interrupt(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let a child end as by Ctrl-C, kill it after so many seconds. Nothing where it has ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def unwind_on_signals() -> None:
    """Let the first SIGINT, SIGTERM or SIGHUP unwind this process' contexts, and no second one disturb that."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(number: int, _: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in signals:
        signal.signal(number, unwind)
