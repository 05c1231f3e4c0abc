"""Commands that run one after the other, or beside others, and the directory, databases and leftovers of such a run."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO

from databases import postgresql, redis_server
from environment import random_key, without_service
from processes import end, interrupt, processes_with_variable

RUN_VARIABLE = "ORCHESTRATOR_TEST_RUN"  # marks every process of a run, so that all of them can be found at its end
PYTEST_NO_TESTS = 5  # pytest's exit code if it selected no test
TIMED_OUT = 124
STOP_SECONDS = 60  # more than `isolated` takes to interrupt its command and to stop its engine
END_SECONDS = 5


class Stopped(Exception):
    """No further command may start."""


@dataclass
class Stages:
    """Commands that run one after the other, in one environment. If one fails, the next still run."""

    environment: dict[str, str]
    output: IO[str] | None = None  # a file for all that is printed, by default this process's output
    failed: list[str] = field(default_factory=list)
    tested: bool = False  # whether any stage ran a test
    _process: subprocess.Popen[bytes] | None = None  # the last command
    _stopped: bool = False
    _starting: Lock = field(default_factory=Lock)

    def run(self, title: str, command: list[str], seconds: float, **variables: str) -> None:
        """Run a command that must exit with 0 within `seconds`."""
        self._report(title, *self._timed(title, command, seconds, variables))

    def run_tests(self, title: str, arguments: list[str], seconds: float, within: Sequence[str] = (), **variables: str) -> None:
        """Run pytest, by the command `within` if there is one. A stage that selects no test is not a failure: see `tested`."""
        code, elapsed = self._timed(title, [*within, "pytest", *arguments], seconds, variables)
        if code == PYTEST_NO_TESTS:
            self._print(f"=== {title}: no test selected")
            return
        self.tested = True
        self._report(title, code, elapsed)

    @contextmanager
    def beside(self, work: Callable[["Stages"], None], **variables: str) -> Iterator[None]:
        """Let `work` run stages at the same time as the context, with further variables in their environment.

        What they print is printed when both have ended. If the context is left with an exception, the work is stopped.
        """
        with tempfile.TemporaryFile("w+", errors="replace") as output, ThreadPoolExecutor(1) as thread:
            self._print("\n=== Two sequences run side by side: the output of the second follows that of the first.")
            others = Stages(self.environment | variables, output)
            done = thread.submit(work, others)
            try:
                yield
                done.result()
            finally:
                others.stop()
                wait([done])
                output.seek(0)
                shutil.copyfileobj(output, sys.stdout)
        self.failed += others.failed
        self.tested = self.tested or others.tested

    def stop(self) -> None:
        """End the command that runs, if there is one, and let no further one start."""
        with self._starting:
            self._stopped = True
        if self._process:
            interrupt(self._process, STOP_SECONDS)

    def end_leftovers(self) -> None:
        """End the processes that the commands left behind, for example because a test was killed."""
        for pid in processes_with_variable(RUN_VARIABLE, self.environment[RUN_VARIABLE]):
            end(pid, END_SECONDS)

    def _report(self, title: str, code: int, elapsed: float) -> None:
        if code:
            self.failed.append(title)
        self._print(f"=== {title}: {f'failed (exit code {code})' if code else 'ok'} after {elapsed:.0f} s")

    def _timed(self, title: str, command: list[str], seconds: float, variables: dict[str, str]) -> tuple[int, float]:
        """Return the exit code, `TIMED_OUT` after `seconds`, and the seconds that the command took."""
        started = time.monotonic()
        process = self._started(title, command, variables)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._print(f"=== {title}: stopped after {seconds:.0f} s")
            code = TIMED_OUT
        except KeyboardInterrupt:  # the terminal has interrupted the command as well: let it clean up
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS / 3)
            raise
        finally:
            interrupt(process, STOP_SECONDS)
        return code, time.monotonic() - started

    def _started(self, title: str, command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._stopped:
                raise Stopped
            self._print(f"\n=== {title}: {' '.join(command)}")
            self._process = subprocess.Popen(command, env=self.environment | variables, stdout=self.output, stderr=self.output)
            return self._process

    def _print(self, text: str) -> None:
        print(text, file=self.output, flush=True)


def stages_in(cleanup: ExitStack, state: Path) -> Stages:
    """Return the stages of a run that has the directory `state` for itself until `cleanup`."""
    claim_directory(cleanup, state)
    environment = without_service() | {RUN_VARIABLE: uuid.uuid4().hex, "STATE_DIR": str(state)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the commands start Python hundreds of times
    return Stages(environment)


def claim_directory(cleanup: ExitStack, state: Path) -> None:
    """Lock `state` until `cleanup`, and empty it. Exits if another run holds it."""
    state.mkdir(parents=True, exist_ok=True)
    directory = os.open(state, os.O_RDONLY)
    cleanup.callback(os.close, directory)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"Another run uses {state}: wait for it, or set STATE_DIR to another directory.") from None
    for entry in state.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def production_variables(cleanup: ExitStack, state: Path) -> dict[str, str]:
    """Start a PostgreSQL and a Redis that run until `cleanup`. Return the service's variables for production."""
    return {
        "DATABASE_URL": cleanup.enter_context(postgresql(state)).url,
        "REDIS_URL": cleanup.enter_context(redis_server(state)).url,
        "PUBLIC_URL": "http://127.0.0.1:8080",
        "SECRET_KEY": random_key(),
        "ENCRYPTION_KEYS": random_key(),
        # As embedded, so that the same tests pass on both. Tests of the defaults set their own.
        "API_AUTH": "off",
        "HOST": "127.0.0.1",
        "EGRESS_ALLOW": "127.0.0.0/8,::1/128,localhost",
    }
