"""bin/test runs each pass, and says which of them failed."""

import os
from pathlib import Path

import environment
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import Stages
from suite import can_select, split_marks, workers

from tests.helpers.parallel import LONG_FILES

pytestmark = pytest.mark.stateless


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """Stages with a `pytest` that exits with the code in its first argument."""
    fake = tmp_path / "pytest"
    fake.write_text('#!/bin/sh\nexit "$1"\n')
    fake.chmod(0o755)
    return Stages({"PATH": f"{tmp_path}:{os.environ['PATH']}"})


def test_a_pass_without_selected_tests_is_no_failure(stages: Stages, capfd: pytest.CaptureFixture[str]) -> None:
    for title, code in (("first", "0"), ("second", "5")):
        stages.run_tests(title, [code], 30)

    assert stages.tested
    assert stages.failed == []
    assert "=== second: no test selected" in capfd.readouterr().out


def test_a_run_without_any_selected_test_has_tested_nothing(stages: Stages) -> None:
    stages.run_tests("only", ["5"], 30)

    assert not stages.tested


def test_a_failed_stage_is_reported_and_the_next_one_runs(stages: Stages, capfd: pytest.CaptureFixture[str]) -> None:
    stages.run("check", ["sh", "-c", "exit 3"], 30)
    stages.run_tests("tests", ["1"], 30)

    assert stages.failed == ["check", "tests"]
    assert "=== check: failed (exit code 3)" in capfd.readouterr().out


def test_a_stage_that_takes_too_long_is_stopped(stages: Stages) -> None:
    stages.run("sleep", ["sleep", "60"], 0.1)

    assert stages.failed == ["sleep"]


@pytest.mark.parametrize(
    ("expression", "selects"),
    [
        ("not long", True),
        ("faults", True),
        ("engine and not any_engine", True),
        ("not engine and not production and not packages", False),
        ("stateless and (production or not engine)", True),
        ("stateless and not (production or engine)", False),
        ("not (", True),  # for pytest to complain about
    ],
)
def test_an_expression_can_select_tests_of_the_engine(expression: str, selects: bool) -> None:
    assert can_select(expression, "engine") is selects


@given(st.lists(st.sampled_from(["-k", "no", "-x", "--lf", "not slow"])))
def test_arguments_other_than_marks_are_passed_on(arguments: list[str]) -> None:
    assert split_marks(arguments) == ("not long", arguments)
    assert split_marks([*arguments, "-m", "engine"]) == ("engine", arguments)


def test_the_files_that_are_run_first_exist() -> None:
    assert [path for path in LONG_FILES if not path.is_file()] == []


def test_chosen_files_and_fault_tests_run_in_one_process() -> None:
    this = str(Path(__file__))
    assert workers("not long", [this]) == []
    assert workers("not long", [f"{this}::test_x"]) == []
    assert workers("faults", []) == []
    assert workers("not long", ["-k", "jobs"]) != []
    assert workers("not long", ["tests"]) != []


@pytest.mark.parametrize(
    ("processors", "chosen", "processes"),
    [
        (1, "not long", "2"),
        (2, "not long", "3"),
        (64, "not long", "4"),
        (2, "not engine", "3"),  # but production
        (1, "not engine and not production", "3"),
        (2, "not engine and not production", "4"),
        (64, "not engine and not production", "4"),
    ],
)
def test_there_are_more_processes_than_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int, chosen: str, processes: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert workers(chosen, [])[:2] == ["-n", processes]


def test_a_process_gets_no_port_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given few ports, none of which is in use yet
    monkeypatch.setattr(environment, "PORTS", environment.PORTS[:50])

    given = [environment.free_port() for _ in range(40)]

    assert len(set(given)) == 40
