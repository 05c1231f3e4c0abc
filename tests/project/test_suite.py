"""bin/test runs each pass, and says which of them failed."""

import os
from pathlib import Path

import environment
import isolated
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import Stages
from suite import CLUSTER, EMBEDDED, NEWER_ENGINE, PRODUCTION, can_select, side_by_side, split_marks, workers

from tests.helpers.parallel import LONG_FILES
from tests.helpers.waiting import wait_for

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


def test_two_sequences_of_stages_run_side_by_side(stages: Stages, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Given commands in two sequences that wait for one another, the first of them with a variable of its own
    met = 'touch "$0" && until [ -e "$1" ]; do sleep 0.05; done && echo "met, ${FIRST:-second}"'

    def meet(of: Stages, title: str, own: str, other: str) -> None:
        of.run(title, ["sh", "-c", met, str(tmp_path / own), str(tmp_path / other)], 30)

    # When both run
    with stages.beside(lambda others: meet(others, "first", "a", "b"), FIRST="first"):
        meet(stages, "second", "b", "a")
        stages.run("third", ["sh", "-c", "exit"], 30)

    # I expect both to end, and what the first has printed to follow all of the other
    assert stages.failed == []
    second, first = capfd.readouterr().out.split("=== first: sh", 1)
    assert "met, second\n=== second: ok" in second
    assert "=== third: ok" in second
    assert "met, first\n=== first: ok" in first


def test_what_fails_beside_other_stages_is_reported(stages: Stages, capfd: pytest.CaptureFixture[str]) -> None:
    with stages.beside(lambda others: others.run_tests("beside", ["1"], 30)):
        stages.run("here", ["true"], 30)

    assert stages.failed == ["beside"]
    assert stages.tested
    assert "=== beside: failed (exit code 1)" in capfd.readouterr().out


def test_an_error_beside_other_stages_is_raised(stages: Stages) -> None:
    def fail(_: Stages) -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"), stages.beside(fail):
        stages.run("here", ["true"], 30)


def test_an_interrupt_ends_the_stages_beside(stages: Stages, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Given two stages, the first of which runs
    def work(others: Stages) -> None:
        others.run("first", ["sh", "-c", 'touch "$0"; exec sleep 600', str(tmp_path / "runs")], 600)
        others.run("second", ["touch", str(tmp_path / "second")], 30)

    def interrupted() -> None:
        with stages.beside(work):
            wait_for((tmp_path / "runs").exists, 30, "the first to run")
            raise KeyboardInterrupt

    # When the others are interrupted
    with pytest.raises(KeyboardInterrupt):
        interrupted()

    # I expect the first to have been ended, and the second not to have begun
    assert not (tmp_path / "second").exists()
    printed = capfd.readouterr().out
    assert "=== first: failed" in printed
    assert "=== second" not in printed


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
    ("marks", "passes"),
    [
        (set(), {EMBEDDED, PRODUCTION}),
        ({"engine"}, {EMBEDDED, PRODUCTION, NEWER_ENGINE}),
        ({"engine", "stateless"}, {EMBEDDED, NEWER_ENGINE}),
        ({"engine", "stateless", "any_engine"}, {EMBEDDED}),
        ({"engine", "production"}, {PRODUCTION}),
        ({"engine", "production", "any_engine", "packages"}, {PRODUCTION}),
        ({"stateless", "packages"}, {PRODUCTION}),  # not in a network of its own
        ({"kubernetes"}, {CLUSTER}),
        ({"kubernetes", "engine", "production"}, {CLUSTER}),
        ({"kubernetes", "stateless"}, {CLUSTER}),
    ],
)
def test_the_passes_that_run_a_test_follow_from_its_marks(marks: set[str], passes: set[str]) -> None:
    known = ("any_engine", "engine", "kubernetes", "packages", "production", "stateless")
    names = {name: name in marks for name in known}
    assert {each for each in (EMBEDDED, PRODUCTION, CLUSTER, NEWER_ENGINE) if eval(each, dict(names))} == passes  # noqa: S307 - our own


@pytest.mark.parametrize(
    ("chosen", "arguments", "possible", "beside"),
    [
        ("not long", ["-k", "jobs"], True, True),
        ("not long", ["-k", "jobs"], False, False),
        ("not long", [str(Path(__file__))], True, False),
        ("not long", ["-n", "0"], True, False),
        ("not long", ["-n0"], True, False),
        ("not long", ["--numprocesses=2"], True, False),
        ("faults", [], True, False),
    ],
)
def test_passes_run_side_by_side_if_the_machine_can_keep_them_apart(
    monkeypatch: pytest.MonkeyPatch, chosen: str, arguments: list[str], possible: bool, beside: bool
) -> None:
    monkeypatch.setattr(isolated, "is_possible", lambda: possible)
    assert side_by_side(chosen, arguments) is beside


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
