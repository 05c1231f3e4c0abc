"""Find processes through /proc, and end them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_RAISE_AGAIN_SECONDS: Final = 0.05


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
    """Make the first SIGINT, SIGTERM or SIGHUP raise an exception, so that contexts are left. Ignore further ones.

    Python drops an exception that is raised in a destructor or in the callback of a weak reference, which every import has. It is
    raised again then.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    raised: list[BaseException] = []

    def unwind(number: int, _: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raised.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
        raise raised[0]

    def raise_again(*_: object) -> None:
        raise raised[0]

    def dropped(what: "sys.UnraisableHookArgs") -> None:
        if what.exc_value in raised:
            signal.setitimer(signal.ITIMER_REAL, _RAISE_AGAIN_SECONDS)  # not here, where it would be dropped again
        else:
            sys.__unraisablehook__(what)

    for number in signals:
        signal.signal(number, unwind)
    signal.signal(signal.SIGALRM, raise_again)
    sys.unraisablehook = dropped
