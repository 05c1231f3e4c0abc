"""Measure `GET /v1/jobs` and its filters with a million jobs in the database, beside a thousand."""

import json
import statistics
import time
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPConnection
from urllib.parse import urlencode

from tests.bench.measuring.installation import installation
from tests.bench.measuring.many_jobs import FIRST, fill
from tests.bench.measuring.results import Row, print_table, report

FEW, MANY = 1_000, 1_000_000
REQUESTS = 30
SINGLE = ("none", "status", "image", "node", "created")
META = ("meta, 10%", "meta, one job", "meta, no job")


@dataclass
class Measured:
    """The answers to one request, on the small and on the large installation."""

    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    found: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def ratio(self) -> float:
        few, many = map(statistics.median, self.seconds)
        return many / few

    def cells(self) -> list[str]:
        few, many = (f"{statistics.median(seconds) * 1000:.1f} ms" for seconds in self.seconds)
        return [f"{self.ratio:.2f}", many, few, *map(str, reversed(self.found))]


def main() -> None:
    with (
        installation("web", WEB_CONCURRENCY="1") as small,
        installation("web", WEB_CONCURRENCY="1") as large,
    ):
        fill(small, FEW)
        fill(large, MANY)
        queries = queries_of()
        measured = {name: Measured() for name in queries}
        connections = [HTTPConnection("127.0.0.1", service.port, timeout=60) for service in (small, large)]
        for turn in range(REQUESTS + 1):
            for name, query in queries.items():
                for index, connection in enumerate(connections):
                    seconds, found = ask(connection, query)
                    measured[name].found[index] = found
                    if turn:  # the first one opens connections and reads pages
                        measured[name].seconds[index].append(seconds)
        for connection in connections:
            connection.close()
    print_table(
        f"GET /v1/jobs, medians of {REQUESTS}",
        ["filter", "ratio", f"{MANY:,} jobs", f"{FEW:,} jobs", "found", "found of few"],
        [[name, *one.cells()] for name, one in measured.items()],
    )
    report(
        "The slowest of each kind",
        [
            row("GET /v1/jobs and each filter", {name: measured[name] for name in SINGLE}),
            row("GET /v1/jobs with a meta filter", {name: measured[name] for name in META}),
            row("GET /v1/jobs with two filters", {name: measured[name] for name in queries if name not in (*SINGLE, *META)}),
        ],
    )


def row(measure: str, measured: dict[str, Measured]) -> Row:
    name = max(measured, key=lambda name: measured[name].ratio)
    _, many, few, *_ = measured[name].cells()
    return Row(
        measure=measure,
        value=measured[name].ratio,
        detail=f"{name}: {many}",
        against=f"with {FEW:,} jobs: {few}",
        target="<= 1.1",
    )


def queries_of() -> dict[str, str]:
    """Return query strings by a name for each. All find the same number of jobs in both databases."""
    window = {"createdAfter": at(FEW // 2), "createdBefore": at(FEW // 2 + 101)}
    filters = {
        "none": {},
        "status": {"status": "failed"},
        "image": {"image": "registry.example/image-4"},
        "node": {"node": "node-1"},
        "created": window,
        "status and image": {"status": "failed", "image": "registry.example/image-4", "limit": "10"},
        "status and created": {"status": "failed", **window},
        "image and node": {"image": "registry.example/image-4", "node": "node-1", "limit": "10"},
        "meta, 10%": {"meta.team": "team-4"},
        "meta, one job": {"meta.run": f"run-{FEW // 2}"},
        "meta, no job": {"meta.run": "none"},
        "meta and meta": {"meta.team": "team-4", "meta.kind": "kind-4", "limit": "10"},
        "meta and status": {"meta.team": "team-4", "status": "failed", "limit": "10"},
        "meta and created": {"meta.kind": "kind-4", **window},
    }
    return {name: urlencode(values) for name, values in filters.items()}


def at(number: int) -> str:
    return (FIRST + timedelta(seconds=number)).isoformat()


def ask(connection: HTTPConnection, query: str) -> tuple[float, int]:
    """Return the seconds to the end of the answer, and how many jobs it has."""
    started = time.perf_counter()
    connection.request("GET", f"/v1/jobs?{query}")
    answer = connection.getresponse()
    body = answer.read()
    elapsed = time.perf_counter() - started
    assert answer.status == 200, body
    return elapsed, len(json.loads(body)["jobs"])


if __name__ == "__main__":
    main()
