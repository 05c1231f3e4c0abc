"""Run the benchmarks: `bench.py [name ...]`, from the repository's root, in the virtual environment.

Each is a module of tests/bench and runs in a process of its own, on a PostgreSQL and a Redis that end with this one.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from databases import DatabaseError
from engine import state_directory
from processes import unwind_on_signals
from stages import production_variables, stages_in

BENCHMARKS = ("deliveries", "claims")
MAX_SECONDS = 1200


def run(names: list[str], state: Path) -> int:
    with ExitStack() as cleanup:
        stages = stages_in(cleanup, state / "bench")
        stages.environment |= production_variables(cleanup, state / "bench")
        stages.environment |= {"DJANGO_SETTINGS_MODULE": "orchestrator_site.settings", "PYTHONPATH": "bin/support"}
        cleanup.callback(stages.end_leftovers)
        for name in names:
            stages.run(name, [sys.executable, "-m", f"tests.bench.{name}"], MAX_SECONDS)
    return 1 if stages.failed else 0


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"Unknown benchmark {unknown[0]}: it must be one of {', '.join(BENCHMARKS)}.", file=sys.stderr)
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
