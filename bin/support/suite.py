"""Run the whole test suite: `suite.py [arguments for pytest]`, from the repository's root, in the virtual environment.

The static checks come first, then three passes of tests: embedded (SQLite), on PostgreSQL and Redis, and those
that depend on the engine once more on a newer one. Everything that the command starts ends with it, however it ends.
"""

import argparse
import itertools
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path

from databases import DatabaseError
from engine import EngineError, borrowed, own, state_directory
from image import ImageError
from own_engine.daemon import Daemon, DaemonError
from own_engine.newer_docker import NewerDockerError, search_path
from packages import PackageError, install_for_tests
from processes import unwind_on_signals
from stages import Stages, production_variables, stages_in

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
MAX_WORKERS = 4  # they share one engine, and take two of the 16 databases of Redis each


def run_all(arguments: list[str], state: Path) -> int:
    """Return 0 if all checks and tests passed, else 1."""
    with ExitStack() as cleanup:
        stages = stages_in(cleanup, state / "test")
        chosen, rest = split_marks(arguments)
        install_for_tests()
        if needs_engine(chosen):
            stages.environment["DOCKER_HOST"] = cleanup.enter_context(borrowed(state))
        production = production_variables(cleanup, state / "test")
        cleanup.callback(stages.end_leftovers)
        for title, command in CHECKS.items():
            stages.run(title, command, CHECK_SECONDS, MYPYPATH="bin/support")
        rest = [*workers(chosen, rest), *rest]
        stages.run_tests("tests, embedded", [f"-m({chosen}) and not production", *rest], TEST_SECONDS)
        stages.run_tests("tests, production", [f"-m({chosen}) and not stateless", *rest], TEST_SECONDS, **production)
        if can_select(chosen, "engine"):
            run_on_newer_engine(stages, state, chosen, rest)
    if not stages.tested:
        stages.failed.append("no test was selected")
    if stages.failed:
        print(f"\nFailed: {', '.join(stages.failed)}", flush=True)
    return 1 if stages.failed else 0


def run_on_newer_engine(stages: Stages, state: Path, chosen: str, arguments: list[str]) -> None:
    """Run the tests that need an engine on a newer one as well, if this machine can have it."""
    path = search_path(state)
    if path is None:
        print("\nOnly one engine is tested: a newer one needs Debian 12 and root.", flush=True)
        return
    with own(Daemon(state / "newer-engine", search_path=path)) as host:
        marks = f"-m({chosen}) and engine and not any_engine and not production"
        stages.run_tests("tests, newer engine", [marks, *arguments], TEST_SECONDS, PATH=path, DOCKER_HOST=host)


def split_marks(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the expression of pytest's `-m`, by default one that leaves out long tests, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", default="not long")
    known, rest = parser.parse_known_args(arguments)
    return known.m, rest


def needs_engine(chosen: str) -> bool:
    return can_select(chosen, "engine") or can_select(chosen, "production")


def can_select(chosen: str, mark: str) -> bool:
    """Return whether an expression of `-m` can select a test that has this mark."""
    others = sorted(set(re.findall(r"\w+", chosen)) - {"and", "or", "not", mark})
    combinations = itertools.product((True, False), repeat=len(others))
    try:
        return any(eval(chosen, {mark: True, **dict(zip(others, values, strict=True))}) for values in combinations)  # noqa: S307 - the argument of bin/test
    except (SyntaxError, TypeError):  # pytest says what is wrong with it
        return True


def workers(chosen: str, arguments: list[str]) -> list[str]:
    """Return the arguments that let pytest use all processors. Chosen files and the long fault tests run in one process.

    Tests wait for half of their time, so there is one process more than processors. Without an engine, which takes processor time
    too, there are two more.
    """
    if "faults" in chosen or any(is_below_tests(argument) for argument in arguments):
        return []
    count = min((os.cpu_count() or 1) + (1 if needs_engine(chosen) else 2), MAX_WORKERS)
    return ["-n", str(count), "--dist", "loadfile"]


def is_below_tests(argument: str) -> bool:
    """Return whether an argument for pytest is a file, a directory or a single test below tests/."""
    path = Path(argument.partition("::")[0]).absolute()
    return Path("tests").absolute() in path.parents and path.exists()


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
