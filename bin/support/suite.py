"""Run the whole test suite: `suite.py [arguments for pytest]`, from the repository's root, in the virtual environment.

There are static checks and four passes of tests: embedded (SQLite), on PostgreSQL and Redis, those that need a Kubernetes
cluster, and those that depend on the engine once more on a newer one. Tests wait for half of their time, so three sequences
of these run side by side if that is possible: the passes without PostgreSQL and Redis then have engines and a network of
their own, and the one on a cluster has databases of its own. Everything that the command starts ends with it, however it ends.
"""

import argparse
import itertools
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import isolated
from databases import DatabaseError
from engine import EngineError, borrowed, state_directory
from image import ImageError
from own_engine.daemon import DaemonError
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
EMBEDDED = "not production and not packages and not kubernetes"  # its network may have no way to a package index
PRODUCTION = "(not stateless or packages) and not kubernetes"
NEWER_ENGINE = "engine and not any_engine and not production and not kubernetes"
CLUSTER = "kubernetes"
CHECK_SECONDS = 900
TEST_SECONDS = 2400
MAX_WORKERS = 4  # they share one engine, and take two of the 16 databases of Redis each


@dataclass(frozen=True)
class Tests:
    """What bin/test was asked to run: an expression of marks, and other arguments for pytest."""

    chosen: str
    arguments: list[str]

    def which_are(self, marks: str) -> list[str]:
        """Return the arguments of pytest for those that have these marks as well."""
        return [f"-m({self.chosen}) and {marks}", *self.arguments]


def run_all(arguments: list[str], state: Path) -> int:
    """Return 0 if all checks and tests passed, else 1."""
    with ExitStack() as cleanup:
        stages = stages_in(cleanup, state / "test")
        chosen, rest = split_marks(arguments)
        install_for_tests()
        if needs_engine(chosen):
            stages.environment["DOCKER_HOST"] = cleanup.enter_context(borrowed(state))
        newer = path_of_newer_engine(state, chosen)
        production = production_variables(cleanup, state / "test")
        kubeconfig = kubeconfig_of_cluster(chosen)
        cleanup.callback(stages.end_leftovers)
        tests = Tests(chosen, [*workers(chosen, rest), *rest])
        if side_by_side(chosen, rest):
            second = isolated.prefix(state / "second-engine" if needs_engine(chosen) else None)

            def without_databases(others: Stages) -> None:
                run_embedded(others, tests, second)
                run_on_newer_engine(others, tests, state, newer)

            def on_cluster(others: Stages) -> None:
                with ExitStack() as databases:
                    run_on_cluster(others, tests, kubeconfig, production_variables(databases, state / "test" / "cluster"))

            with (
                stages.beside(without_databases, STATE_DIR=str(state / "test" / "beside")),
                stages.beside(on_cluster, STATE_DIR=str(state / "test" / "cluster")) if kubeconfig else nullcontext(),
            ):
                run_checks(stages)
                run_production(stages, tests, production)
        else:
            run_checks(stages)
            run_embedded(stages, tests)
            run_production(stages, tests, production)
            if kubeconfig:
                run_on_cluster(stages, tests, kubeconfig, production)
            run_on_newer_engine(stages, tests, state, newer)
    if not stages.tested:
        stages.failed.append("no test was selected")
    if stages.failed:
        print(f"\nFailed: {', '.join(stages.failed)}", flush=True)
    return 1 if stages.failed else 0


def path_of_newer_engine(state: Path, chosen: str) -> str | None:
    """Return the `PATH` of a newer engine, None if no test needs it or this machine cannot have it."""
    if not can_select(chosen, "engine"):
        return None
    path = search_path(state)
    if path is None:
        print("\nOnly one engine is tested: a newer one needs Debian 12 and root.", flush=True)
    return path


def kubeconfig_of_cluster(chosen: str) -> str:
    """Return the KUBECONFIG of the cluster to test on; empty if no test needs it or there is none."""
    if not can_select(chosen, "kubernetes"):
        return ""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not kubeconfig:
        print("\nNo Kubernetes cluster is tested: KUBECONFIG is not set.", flush=True)
    return kubeconfig


def run_checks(stages: Stages) -> None:
    for title, command in CHECKS.items():
        stages.run(title, command, CHECK_SECONDS, MYPYPATH="bin/support")


def run_embedded(stages: Stages, tests: Tests, within: Sequence[str] = ()) -> None:
    stages.run_tests("tests, embedded", tests.which_are(EMBEDDED), TEST_SECONDS, within)


def run_production(stages: Stages, tests: Tests, variables: dict[str, str]) -> None:
    stages.run_tests("tests, production", tests.which_are(PRODUCTION), TEST_SECONDS, **variables)


def run_on_cluster(stages: Stages, tests: Tests, kubeconfig: str, variables: dict[str, str]) -> None:
    """Run the tests that need a Kubernetes cluster, with databases of production."""
    stages.run_tests("tests, Kubernetes", tests.which_are(CLUSTER), TEST_SECONDS, KUBECONFIG=kubeconfig, **variables)


def run_on_newer_engine(stages: Stages, tests: Tests, state: Path, path: str | None) -> None:
    """Run the tests that need an engine on a newer one as well, if this machine can have it."""
    if path is not None:
        within = isolated.prefix(state / "newer-engine")
        stages.run_tests("tests, newer engine", tests.which_are(NEWER_ENGINE), TEST_SECONDS, within, PATH=path)


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


def side_by_side(chosen: str, arguments: list[str]) -> bool:
    """Return whether passes run at the same time: if no argument limits the processes, and the machine can keep passes apart."""
    return bool(workers(chosen, arguments)) and not any(map(limits_processes, arguments)) and isolated.is_possible()


def limits_processes(argument: str) -> bool:
    return argument.startswith(("-n", "--numprocesses"))


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
