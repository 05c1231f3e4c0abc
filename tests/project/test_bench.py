"""bin/bench: its benchmarks, and its rows, medians and summary."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import bench
import pytest

from tests.bench.measuring.results import COLUMNS, RESULTS_VARIABLE, Row, markdown, medians, number, percentile, report
from tests.bench.measuring.usage import ProcessGroup, engine_processes

pytestmark = pytest.mark.stateless

ROOT = Path(__file__).resolve().parents[2]


def row(value: float, **values: str) -> Row:
    return Row(measure="m", value=value, **values)


@pytest.mark.parametrize(
    ("value", "target", "reached"),
    [(0.75, "<= 0.75", True), (0.76, "<= 0.75", False), (30, "< 30", False), (29.9, "< 30", True), (1.3, ">= 1.3", True)],
)
def test_a_row_says_whether_its_target_was_reached(value: float, target: str, reached: bool) -> None:
    assert row(value, target=target).reached is reached


def test_a_row_without_a_target_says_nothing_about_it() -> None:
    assert row(5, unit="ms").cells() == ["m", "5 ms", "", "", ""]


def test_a_row_shows_its_numbers_with_their_unit() -> None:
    shown = row(1.789, detail="456 ms", against="docker run: 255 ms", target="<= 0.75").cells()

    assert dict(zip(COLUMNS, shown, strict=True)) == {
        "measure": "m",
        "result": "1.79 (456 ms)",
        "against": "docker run: 255 ms",
        "target": "<= 0.75",
        "reached": "no",
    }
    assert row(21.0, unit="ms", target="< 30").cells()[1:4] == ["21.0 ms", "", "< 30 ms"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0512, "0.051"), (4.377, "4.38"), (43.77, "43.8"), (37500.2, "37,500"), (21, "21")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 99) == 7.0


def test_of_several_rounds_the_row_with_the_median_is_taken_whole() -> None:
    rounds = [row(3, detail="c"), row(1, detail="a"), Row(measure="other", value=9), row(2, detail="b")]

    assert [(one.measure, one.value, one.detail) for one in medians(rounds)] == [("m", 2, "b"), ("other", 9, "")]


def test_the_summary_has_the_rows_with_targets_of_all_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two rounds of a benchmark
    results = tmp_path / "results.jsonl"
    monkeypatch.setenv(RESULTS_VARIABLE, str(results))
    for value in (2.0, 1.0):
        report("a title", [row(value, target="< 1.5"), Row(measure="explains", value=7)])

    # When they are summarized, in text and in Markdown
    text, table = (
        subprocess.run(
            [sys.executable, "-m", "tests.bench.summary", str(results), *options],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for options in ([], ["--markdown"])
    )

    # I expect one line for the measure with a target
    assert re.findall(r"^  m .*", text, re.MULTILINE) == ["  m        1.00             < 1.5   yes"]
    assert "explains" not in text
    assert table.strip() == markdown(COLUMNS, [["m", "1.00", "", "< 1.5", "yes"]])


def test_a_run_without_results_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.summary", str(tmp_path / "missing")]

    assert "Nothing was measured" in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_every_benchmark_runs_and_is_documented() -> None:
    modules = {path.stem for path in (ROOT / "tests" / "bench").glob("*.py")} - {"__init__", "summary"}
    guides = (ROOT / "docs" / "performance.md").read_text() + (ROOT / "docs" / "development.md").read_text()

    assert modules == {*bench.WITH_TARGETS, *bench.ON_CLUSTER, *bench.BY_NAME}
    assert not {name for name in modules if f"`{name}`" not in guides}


def test_a_group_has_the_processes_of_a_session() -> None:
    # Given a process with a child in a session of its own
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        group = ProcessGroup.of_sessions([process.pid])

        # I expect both in it, with their memory and processor time
        assert set(group.pids()) == {process.pid, child}
        assert group.proportional_bytes() > 0
        assert group.cpu_seconds() >= 0
        subprocess.run(["kill", str(child)], check=True)


def test_the_engine_is_the_process_behind_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "socket"))
        engine.listen()

        assert os.getpid() in engine_processes(f"unix://{tmp_path}/socket").pids()
