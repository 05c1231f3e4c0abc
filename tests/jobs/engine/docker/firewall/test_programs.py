"""Running the programs that change the firewall."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from jobs.engine.docker.firewall import programs
from jobs.engine.docker.firewall.programs import FirewallError, is_installed, run

pytestmark = pytest.mark.stateless

PYTHON = "/usr/bin/python3"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a program, still to be written."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "given"


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(stat.S_IRWXU)


def test_a_program_gets_its_input_and_no_secrets(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "canary")
    write(program, 'read line; echo "$line $1 $SECRET_KEY"')

    assert run("given", "argument", text="input\n", timeout=10) == "input argument \n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no memory >&2; exit 1", "given has failed: no memory"),
        ("printf '\\377' >&2; exit 1", "given has failed: �"),
        ("exec /nowhere/interpreter", "given has failed: "),
        ("exec /bin/sleep 60", "given cannot be run: .*timed out"),
    ],
)
def test_a_program_that_fails(program: Path, script: str, message: str) -> None:
    write(program, script)
    with pytest.raises(FirewallError, match=message):
        run("given", timeout=0.5)


def test_a_program_that_cannot_be_executed(program: Path) -> None:
    program.write_bytes(b"\x7fELF, but no more")
    program.chmod(stat.S_IRWXU)
    with pytest.raises(FirewallError, match="given cannot be run"):
        run("given", timeout=10)


def test_a_missing_program(program: Path) -> None:
    assert not is_installed("given")
    with pytest.raises(FirewallError, match="given is not installed"):
        run("given", timeout=10)


def test_a_long_message_is_cut(program: Path) -> None:
    write(program, "printf '%02000d' 0 >&2; exit 1")
    with pytest.raises(FirewallError) as error:
        run("given", timeout=10)
    assert len(str(error.value)) < 600


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.skipif(not Path(PYTHON).exists(), reason="other users may have no access to the tests' Python")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], True),
        (["--bounding-set=-net_admin", "--inh-caps=-net_admin"], False),
        (["--reuid=65534", "--clear-groups"], False),
        (["--reuid=65534", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin"], True),
    ],
    ids=["root", "root without the capability", "another user", "another user with the capability"],
)
def test_who_may_change_the_firewall(options: list[str], expected: bool) -> None:
    script = Path(programs.__file__).read_text() + "\nprint(may_change_firewall())\n"

    command = ["setpriv", *options, PYTHON, "-S", "-"]
    printed = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=True).stdout

    assert printed == f"{expected}\n"
