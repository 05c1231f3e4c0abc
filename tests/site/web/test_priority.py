"""`web` goes before other processes, if it may."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator_site.web.priority import NICE
from tests.helpers.service_processes import ROOT

pytestmark = pytest.mark.stateless

AUTOGROUP = "/autogroup-17 nice 0\n"
NOBODY = 65534

# Starts with this nice value, and as this user; prints its nice value at the end.
PROGRAM = """
import os, sys
from pathlib import Path
from orchestrator_site.web.priority import raise_priority
os.nice(int(sys.argv[2]))
os.setuid(int(sys.argv[3]))
raise_priority(Path(sys.argv[1]))
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.fixture
def autogroup(tmp_path: Path) -> Path:
    file = tmp_path / "autogroup"
    file.write_text(AUTOGROUP)
    return file


def nice_value(autogroup: Path, *, nice: int = 0, user: int | None = None, session: bool = True) -> int:
    command = [sys.executable, "-c", PROGRAM, str(autogroup), str(nice), str(os.getuid() if user is None else user)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, start_new_session=session).stdout)


@pytest.fixture
def started() -> int:
    """The nice value that processes of this test start with, which must be the default."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if os.getuid() != 0 or nice > 0:
        pytest.skip("needs root, and the default priority")
    return nice


@pytest.mark.usefixtures("started")
class TestAsRoot:
    def test_the_process_and_its_session_get_priority(self, autogroup: Path) -> None:
        assert nice_value(autogroup) == NICE
        assert autogroup.read_text() == str(NICE)

    def test_a_session_of_other_processes_is_left_alone(self, autogroup: Path) -> None:
        assert nice_value(autogroup, session=False) == NICE
        assert autogroup.read_text() == AUTOGROUP

    def test_a_priority_that_was_chosen_is_left_alone(self, autogroup: Path) -> None:
        autogroup.write_text("/autogroup-17 nice 3\n")
        assert nice_value(autogroup, nice=3) == 3
        assert autogroup.read_text() == "/autogroup-17 nice 3\n"

    def test_without_the_permission_nothing_changes(self, autogroup: Path) -> None:
        autogroup.chmod(0o444)
        assert nice_value(autogroup, user=NOBODY) == 0
        assert autogroup.read_text() == AUTOGROUP


@pytest.mark.parametrize("content", [None, ""], ids=["no file", "an empty file"])
def test_a_kernel_without_groups_of_sessions_is_no_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "autogroup"
    if content is not None:
        file.write_text(content)
    nice_value(file)
    assert content is None or file.read_text() == content
