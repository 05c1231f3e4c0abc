"""Rows of the benchmarks: a measure, what it is compared with, its target, and whether it was reached."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

RESULTS_VARIABLE = "BENCH_RESULTS"  # names the file that collects the rows of a whole run, one JSON object a line
COLUMNS = ("measure", "result", "against", "target", "reached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured number. A ratio has no unit; `detail` then has the number that was divided.

    `target` begins with an operator: `<= 0.75`, `>= 1.3`, `< 30`. It is empty for numbers that only explain others.
    """

    measure: str
    value: float
    unit: str = ""
    detail: str = ""
    against: str = ""
    target: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached; None without a target."""
        if not self.target:
            return None
        operator, bound = self.target.split()
        limit = float(bound)
        return {
            "<": self.value < limit,
            "<=": self.value <= limit,
            ">=": self.value >= limit,
        }[operator]

    def cells(self) -> list[str]:
        """Return the row's texts for `COLUMNS`."""
        shown = f"{number(self.value)}{self.unit and ' ' + self.unit}"
        target = f"{self.target}{self.unit and ' ' + self.unit}" if self.target else ""
        reached = {None: "", True: "yes", False: "no"}[self.reached]
        return [self.measure, f"{shown} ({self.detail})" if self.detail else shown, self.against, target, reached]

    @classmethod
    def load(cls, path: Path) -> list[Self]:
        """Return the rows that were reported to this file, in their order."""
        return [cls(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def number(value: float) -> str:
    """Return an integer as it is, other numbers with three digits: 0.051, 4.38, 43.8, 37,500."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def report(title: str, rows: Sequence[Row]) -> None:
    """Print the rows, and add them to the results of the run."""
    print_table(title, COLUMNS, [row.cells() for row in rows])
    path = os.environ.get(RESULTS_VARIABLE)
    if path:
        with Path(path).open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def medians(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each measure: of several rounds the one with the median value, of an even number the lower."""
    rounds: dict[str, list[Row]] = {}
    for row in rows:
        rounds.setdefault(row.measure, []).append(row)
    return [sorted(same, key=lambda row: row.value)[(len(same) - 1) // 2] for same in rounds.values()]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest of the values that this percentage of them does not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    print(f"\n{title}\n", flush=True)
    for row in (columns, ["-" * width for width in widths], *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
