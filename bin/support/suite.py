"""The whole test suite: `suite.py [pytest's arguments]`, from the repository's root, in the virtual environment.

The checks first, then the tests: embedded (SQLite), in production's configuration (PostgreSQL and Redis), and those
that need an engine once more on a newer one.
Whatever it started has ended when it ends, however it ends.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from databases import DatabaseError, postgresql, redis_server
from dockerd import Daemon, DaemonError
from engine import EngineError, borrowed, own, state_directory
from environment import random_key, without_service
from image import ImageError
from newer_docker import NewerDockerError, search_path
from packages import PackageError, install_for_tests
from processes import end, interrupt, processes_with_variable, unwind_on_signals

RUN_VARIABLE = "ORCHESTRATOR_TEST_RUN"  # tells the processes of this run, so that none is forgotten
NO_TESTS = 5  # pytest's exit code
CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "mypy, commands": ["mypy", "bin/support"],
    "import-linter": ["lint-imports"],
    "migrations": ["python", "manage.py", "makemigrations", "--check", "--dry-run"],
}
CHECK_SECONDS = 900
TEST_SECONDS = 2400
STOP_SECONDS = 30


@dataclass
class Suite:
    """Stages run one after the other; a failed one does not keep the next from running."""

    environment: dict[str, str]
    failed: list[str] = field(default_factory=list)

    def run(self, title: str, command: list[str], seconds: float, **variables: str) -> int:
        """The stage's exit code; 124 after so many seconds."""
        print(f"\n=== {title}: {' '.join(command)}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(command, env=self.environment | variables)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"=== {title}: not done after {seconds:.0f} s, stopped", flush=True)
            code = 124
        except KeyboardInterrupt:  # the terminal has told the stage as well: it may clean up in peace
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS / 3)
            raise
        finally:
            interrupt(process, STOP_SECONDS)
        if code:
            self.failed.append(title)
        print(f"=== {title}: {'ok' if code == 0 else f'failed ({code})'} after {time.monotonic() - started:.0f} s", flush=True)
        return code

    def run_tests(self, title: str, arguments: list[str], **variables: str) -> bool:
        """Run pytest; whether there were any tests among those that `arguments` choose."""
        code = self.run(title, ["pytest", *arguments], TEST_SECONDS, **variables)
        if code == NO_TESTS:
            self.failed.remove(title)
        return code != NO_TESTS


def run_all(arguments: list[str], state: Path) -> int:
    suite = new_suite(state / "test")
    with ExitStack() as cleanup:
        with_room(cleanup, state / "test")
        install_for_tests()
        suite.environment["DOCKER_HOST"] = cleanup.enter_context(borrowed(state))
        production = production_variables(cleanup, state / "test")
        cleanup.callback(end_forgotten, suite.environment[RUN_VARIABLE])
        for title, command in CHECKS.items():
            suite.run(title, command, CHECK_SECONDS, MYPYPATH="bin/support")
        chosen, rest = split_marks(arguments)
        tested = suite.run_tests("tests, embedded", [f"-m({chosen}) and not production", *rest])
        tested |= suite.run_tests("tests, production", [f"-m({chosen}) and not stateless", *rest], **production)
        tested |= run_on_newer_engine(suite, state, chosen, rest)
        if not tested:
            suite.failed.append("no test was found")
    if suite.failed:
        print(f"\nFailed: {', '.join(suite.failed)}", flush=True)
    return 1 if suite.failed else 0


def run_on_newer_engine(suite: Suite, state: Path, chosen: str, arguments: list[str]) -> bool:
    """Run the tests that need an engine on a newer one as well; whether there were any."""
    path = search_path(state)
    if path is None:
        print("\nOnly one engine is tested: a second one needs Debian 12 and root.", flush=True)
        return False
    with own(Daemon(state / "newer-engine", search_path=path)) as host:
        marks = f"-m({chosen}) and engine and not production"
        return suite.run_tests("tests, newer engine", [marks, *arguments], PATH=path, DOCKER_HOST=host)


def split_marks(arguments: list[str]) -> tuple[str, list[str]]:
    """The expression of pytest's `-m`, and the other arguments. Without one: all that does not take long."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", default="not long")
    known, rest = parser.parse_known_args(arguments)
    return known.m, rest


def new_suite(state: Path) -> Suite:
    """One whose stages keep their state there, and whose processes can be told from all others."""
    return Suite(without_service() | {RUN_VARIABLE: uuid.uuid4().hex, "STATE_DIR": str(state)})


def production_variables(cleanup: ExitStack, state: Path) -> dict[str, str]:
    """A PostgreSQL and a Redis that run until `cleanup`, and what else the service needs to use them."""
    return {
        "DATABASE_URL": cleanup.enter_context(postgresql(state)).url,
        "REDIS_URL": cleanup.enter_context(redis_server(state)).url,
        "PUBLIC_URL": "http://127.0.0.1:8080",
        "SECRET_KEY": random_key(),
        "ENCRYPTION_KEYS": random_key(),
        # As embedded, so that the same tests run on both; those about the defaults set their own.
        "API_AUTH": "off",
        "EGRESS_ALLOW": "127.0.0.0/8,::1/128,localhost",
    }


def with_room(cleanup: ExitStack, state: Path) -> None:
    """Have this directory for this run alone, empty. Exits where another run has it."""
    state.mkdir(parents=True, exist_ok=True)
    directory = os.open(state, os.O_RDONLY)
    cleanup.callback(os.close, directory)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"Another run is in {state}: wait for it, or give this one a STATE_DIR of its own.") from None
    for entry in state.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def end_forgotten(run: str) -> None:
    """End what tests have left behind, say because they were killed."""
    for pid in processes_with_variable(RUN_VARIABLE, run):
        end(pid, 5)


def main() -> int:
    unwind_on_signals()
    try:
        return run_all(sys.argv[1:], state_directory())
    except (EngineError, DaemonError, NewerDockerError, ImageError, DatabaseError, PackageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
