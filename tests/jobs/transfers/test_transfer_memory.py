"""The memory of a download and an upload does not grow with the file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stateless

MIB = 1024**2


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("engine", "size"), [("fake", 64), pytest.param("docker", 256, marks=pytest.mark.engine)])
def test_memory_does_not_grow_with_the_file(engine: str, size: int, tmp_path: Path) -> None:
    # Given a process of its own that downloads a large file into a container and uploads it from there
    program = [sys.executable, "-m", "tests.jobs.transfers.transfer_memory", engine, str(size)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    # When it is done
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr
    # I expect that it needed a few buffers only
    assert int(done.stdout) < 4 * MIB
