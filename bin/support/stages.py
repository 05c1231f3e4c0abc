"""Commands that run one after the other, and the directory, databases and leftovers of such a run."""

import fcntl
import os
import shutil
import subprocess
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from databases import postgresql, redis_server
from environment import random_key, without_service
from processes import end, interrupt, processes_with_variable

RUN_VARIABLE = "ORCHESTRATOR_TEST_RUN"  # marks every process of a run, so that all of them can be found at its end
PYTEST_NO_TESTS = 5  # pytest's exit code if it selected no test
TIMED_OUT = 124
STOP_SECONDS = 30
END_SECONDS = 5


@dataclass
class Stages:
    """Commands that run one after the other, in one environment. If one fails, the next still run."""

    environment: dict[str, str]
    failed: list[str] = field(default_factory=list)
    tested: bool = False  # whether any stage ran a test

    def run(self, title: str, command: list[str], seconds: float, **variables: str) -> None:
        """Run a command that must exit with 0 within `seconds`."""
        self._report(title, *self._timed(title, command, seconds, variables))

    def run_tests(self, title: str, arguments: list[str], seconds: float, **variables: str) -> None:
        """Run pytest. A stage that selects no test is not a failure: see `tested`."""
        code, elapsed = self._timed(title, ["pytest", *arguments], seconds, variables)
        if code == PYTEST_NO_TESTS:
            print(f"=== {title}: no test selected", flush=True)
            return
        self.tested = True
        self._report(title, code, elapsed)

    def end_leftovers(self) -> None:
        """End the processes that the commands left behind, for example because a test was killed."""
        for pid in processes_with_variable(RUN_VARIABLE, self.environment[RUN_VARIABLE]):
            end(pid, END_SECONDS)

    def _report(self, title: str, code: int, elapsed: float) -> None:
        if code:
            self.failed.append(title)
        print(f"=== {title}: {f'failed (exit code {code})' if code else 'ok'} after {elapsed:.0f} s", flush=True)

    def _timed(self, title: str, command: list[str], seconds: float, variables: dict[str, str]) -> tuple[int, float]:
        """Return the exit code, `TIMED_OUT` after `seconds`, and the seconds that the command took."""
        print(f"\n=== {title}: {' '.join(command)}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(command, env=self.environment | variables)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"=== {title}: stopped after {seconds:.0f} s", flush=True)
            code = TIMED_OUT
        except KeyboardInterrupt:  # the terminal has interrupted the command as well: let it clean up
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS / 3)
            raise
        finally:
            interrupt(process, STOP_SECONDS)
        return code, time.monotonic() - started


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
