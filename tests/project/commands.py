"""Run the commands in bin/ as a new user does."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from environment import without_service
from processes import processes_with_variable

ROOT = Path(__file__).resolve().parents[2]
STATE_VARIABLE = "ORCHESTRATOR_COMMAND_TEST"  # marks the processes of a command
STOP_SECONDS = 60


@contextmanager
def started(command: str, state: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command of bin/ with a state directory of its own. Kill it at the end if it still runs."""
    environment = without_service() | {"STATE_DIR": str(state), STATE_VARIABLE: str(state)} | variables
    process = subprocess.Popen(
        [ROOT / "bin" / command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdout
    with process.stdout:
        try:
            yield process
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return what the command prints, up to the first line with this text."""
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"the command ended without {text!r}: {''.join(lines)}")


def nothing_runs(state: Path) -> bool:
    """Return whether all processes of the command with this state directory have ended."""
    return not processes_with_variable(STATE_VARIABLE, str(state))


def answers(url: str) -> bool:
    """Return whether a GET of this URL succeeds. A service that is about to start may take long."""
    with suppress(requests.ConnectionError, requests.Timeout), requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=10).ok
    return False
