"""What all processes with parts have in common."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.stateless

PROGRAM = """
import gc, os
from orchestrator_site.processes.runtime import Runtime

os._exit = lambda _code: print(gc.get_freeze_count())
runtime = Runtime()
runtime.stopping.set()
runtime.run_until_signal()
"""


def test_the_garbage_collector_ignores_what_was_there_after_the_start() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)

    assert int(ran.stdout) > 1000
