"""Print all rows of a run, of several rounds the medians: `python -m tests.bench.summary FILE [--markdown]`."""

import argparse
from pathlib import Path

from tests.bench.measuring.results import COLUMNS, Row, markdown, medians, print_table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    rows = [row.cells() for row in medians(Row.load(arguments.file)) if row.target]
    if not rows:
        print("\nNothing was measured.")
    elif arguments.markdown:
        print("\n" + markdown(COLUMNS, rows))
    else:
        print_table("Summary: every measure that has a target", COLUMNS, rows)


if __name__ == "__main__":
    main()
