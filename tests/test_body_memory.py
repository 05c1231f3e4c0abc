"""What a request's body takes of a web process' memory."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stateless

MIB = 1024**2


def test_no_body_takes_much_memory_or_keeps_it() -> None:
    # Given a process of its own that is posted the worst bodies, two of each at once
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # When it has answered them
    program = [sys.executable, "-m", "tests.body_memory"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    # I expect that each took no more than the values of one body, and gave it back
    grown = {name: (int(peak), int(kept)) for name, peak, kept in (line.split("\t") for line in done.stdout.splitlines())}
    assert grown
    assert {name: peak // MIB for name, (peak, _) in grown.items() if peak > 64 * MIB} == {}
    assert {name: kept // MIB for name, (_, kept) in grown.items() if kept > 32 * MIB} == {}
