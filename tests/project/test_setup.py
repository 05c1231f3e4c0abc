"""bin/setup installs the pinned requirements once."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import virtualenv

from tests.project.commands import ROOT, STOP_SECONDS


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository without requirements, in a directory with a space in its name."""
    clone = tmp_path / "my clone"
    shutil.copytree(ROOT / "bin", clone / "bin")
    (clone / "tests").mkdir()
    for path in ("requirements.txt", "tests/requirements.txt"):
        (clone / path).write_text("# none\n")
    return clone


def set_up(clone: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([clone / "bin" / "setup"], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def unchecked_wheel(directory: Path) -> None:
    """Make a package without content, version 1."""
    directory.mkdir()
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: package\nVersion: 1\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(directory / "package-1-py3-none-any.whl", "w") as wheel:
        for name, content in metadata.items():
            wheel.writestr(f"package-1.dist-info/{name}", content)


@pytest.mark.stateless
@pytest.mark.packages
def test_concurrent_and_later_calls_install_once(clone: Path) -> None:
    # Given two commands that start at the same time in a fresh clone, and a third later
    first_two = [set_up(clone), set_up(clone)]
    printed = [process.communicate(timeout=STOP_SECONDS)[0] for process in first_two]
    later = set_up(clone)
    printed.append(later.communicate(timeout=STOP_SECONDS)[0])

    # I expect all three to succeed, one to have installed, and the environment to work
    assert [process.returncode for process in (*first_two, later)] == [0, 0, 0], printed
    assert sum("Installing" in text for text in printed) == 1
    subprocess.run([clone / ".venv" / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)


@pytest.mark.stateless
@pytest.mark.packages
def test_a_failed_installation_is_started_again(clone: Path) -> None:
    # Given an installation that failed halfway: a package is there, but its requirement has no hash
    unchecked_wheel(clone / "wheels")
    (clone / "requirements.txt").write_text("--no-index\n--find-links wheels\npackage==1\n")
    failed = set_up(clone)
    text = failed.communicate(timeout=STOP_SECONDS)[0]
    assert failed.returncode != 0
    assert "--hash" in text
    assert "cannot be created" in text

    # When it is called again without the cause, I expect a new environment
    (clone / "requirements.txt").write_text("# none\n")
    again = set_up(clone)
    text = again.communicate(timeout=STOP_SECONDS)[0]
    assert again.returncode == 0, text
    assert "Installing" in text


@pytest.mark.stateless
def test_a_user_who_may_not_install_is_told_who_may(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # Given an installation of a server, whose requirements have changed
    def make(_: str) -> None:
        raise PermissionError(13, "Permission denied", ".venv/.installing")

    monkeypatch.setattr(virtualenv, "make", make)
    monkeypatch.setattr(sys, "argv", ["virtualenv.py", "make", "run"])

    # When another user starts a command
    assert virtualenv.main() == 1
    assert capsys.readouterr().err == f".venv must be set up by a user who may write to it: run {ROOT}/bin/setup as that user.\n"
