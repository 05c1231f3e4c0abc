"""The benchmarks: `bench.py [name ...]`, from the repository's root, in the virtual environment.

Each is a module of tests/bench and runs in a process of its own, on a PostgreSQL and a Redis that end with this one.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from databases import DatabaseError
from engine import state_directory
from processes import unwind_on_signals
from suite import RUN_VARIABLE, end_forgotten, new_suite, production_variables, with_room

BENCHMARKS = ("deliveries", "claims")
MOST_SECONDS = 1200


def run(names: list[str], state: Path) -> int:
    with ExitStack() as cleanup:
        with_room(cleanup, state / "bench")
        suite = new_suite(state / "bench")
        suite.environment |= production_variables(cleanup, state / "bench")
        suite.environment |= {"DJANGO_SETTINGS_MODULE": "orchestrator_site.settings", "PYTHONPATH": "bin/support"}
        cleanup.callback(end_forgotten, suite.environment[RUN_VARIABLE])
        for name in names:
            suite.run(name, [sys.executable, "-m", f"tests.bench.{name}"], MOST_SECONDS)
    return 1 if suite.failed else 0


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"There is no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 2
    unwind_on_signals()
    try:
        return run(names, state_directory())
    except DatabaseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
