"""Find processes through /proc, and end them."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path


def process_ids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def processes_with_argument(beginning: str) -> list[int]:
    """Return the processes that were started with an argument that begins with this text."""
    mark = b"\0" + os.fsencode(beginning)
    return [pid for pid in process_ids() if mark in read(f"/proc/{pid}/cmdline")]


def read(path: str) -> bytes:
    """Return the content of a file in /proc, empty if its process is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def processes_with_variable(name: str, value: str) -> list[int]:
    """Return the processes that were started with this environment variable."""
    mark = os.fsencode(f"{name}={value}")
    return [pid for pid in process_ids() if mark in read(f"/proc/{pid}/environ").split(b"\0")]


def end(pid: int, seconds: float) -> None:
    """Send SIGTERM to a process, SIGKILL after `seconds`, and return when it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while runs(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def runs(pid: int) -> bool:
    """Return whether the process exists and is not a zombie, which only its parent can reap."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])


def interrupt(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Send SIGINT to a child unless it has ended, SIGKILL after `seconds`, and return when it is gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def unwind_on_signals() -> None:
    """Make the first SIGINT, SIGTERM or SIGHUP raise an exception, so that contexts are left. Ignore further ones."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(number: int, _: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in signals:
        signal.signal(number, unwind)
