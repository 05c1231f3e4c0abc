"""Run the benchmarks: `bench.py [--rounds N] [--markdown] [name ...]`, from the repository's root, in the virtual environment.

Each is a module of tests/bench and runs in a process of its own, on a PostgreSQL and a Redis that end with this one. A summary of
all rows comes last. An error is a failure, an unreached target is not.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import leftovers
from databases import DatabaseError
from engine import EngineError, borrowed, state_directory
from image import ImageError
from processes import unwind_on_signals
from stages import Stages, production_variables, stages_in

# In the order of the table in docs/performance.md.
WITH_TARGETS = (
    "latency",
    "throughput",
    "posting",
    "transfers",
    "logs",
    "deliveries",
    "delivery_latency",
    "listing",
    "scrape",
    "idle",
    "running_jobs",
    "serve_start",
)
ON_CLUSTER = ("cluster",)  # those of the Kubernetes cluster that KUBECONFIG names
BY_NAME = ("hanging_host", "old_events")  # without targets: they only run if they are named
WITHOUT_ENGINE = {"deliveries", "delivery_latency", "listing", "scrape", *ON_CLUSTER, *BY_NAME}
MAX_SECONDS = 600


def run(names: list[str], rounds: int, markdown: bool, state: Path) -> int:
    """Return 0 unless a benchmark failed."""
    with ExitStack() as cleanup:
        stages = stages_in(cleanup, state / "bench")
        results = state / "bench" / "results.jsonl"
        if set(names) - WITHOUT_ENGINE:
            host = cleanup.enter_context(borrowed(state))
            stages.environment["DOCKER_HOST"] = host
            cleanup.callback(leftovers.remove, host, "bench")
        stages.environment |= production_variables(cleanup, state / "bench")
        stages.environment |= {
            "DJANGO_SETTINGS_MODULE": "orchestrator_site.settings",
            "PYTHONPATH": "bin/support",
            "BENCH_RESULTS": str(results),
        }
        cleanup.callback(stages.end_leftovers)
        for number in range(1, rounds + 1):
            for name in names:
                title = f"{name}, round {number}" if rounds > 1 else name
                variables = {"KUBECONFIG": os.environ["KUBECONFIG"]} if name in ON_CLUSTER else {}
                stages.run(title, [sys.executable, "-m", f"tests.bench.{name}"], MAX_SECONDS, **variables)
        summarize(stages, results, markdown)
    return 1 if stages.failed else 0


def summarize(stages: Stages, results: Path, markdown: bool) -> None:
    options = ["--markdown"] if markdown else []
    stages.run("summary", [sys.executable, "-m", "tests.bench.summary", str(results), *options], MAX_SECONDS)
    if stages.failed:
        print(f"\nFailed: {', '.join(stages.failed)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/bench", description="Print the tables of the benchmarks.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"by default: {', '.join(WITH_TARGETS)}, and with KUBECONFIG {', '.join(ON_CLUSTER)}; also: {', '.join(BY_NAME)}",
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often to run them; the summary then has the medians")
    parser.add_argument("--markdown", action="store_true", help="print the summary as a Markdown table")
    arguments = parser.parse_args()
    has_cluster = bool(os.environ.get("KUBECONFIG"))
    names = arguments.names or [*WITH_TARGETS, *(ON_CLUSTER if has_cluster else ())]
    known = (*WITH_TARGETS, *ON_CLUSTER, *BY_NAME)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}: it must be one of {', '.join(known)}")
    if set(names) & set(ON_CLUSTER) and not has_cluster:
        parser.error(f"{ON_CLUSTER[0]} needs a Kubernetes cluster: set KUBECONFIG to the file that says how to reach it")
    unwind_on_signals()
    try:
        return run(names, arguments.rounds, arguments.markdown, state_directory())
    except (DatabaseError, EngineError, ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
