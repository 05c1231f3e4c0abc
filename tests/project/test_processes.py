"""What the commands in bin/ do when they are interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import processes
import pytest

pytestmark = pytest.mark.stateless

PROGRAM = """
import os, signal, time
from processes import unwind_on_signals

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.Signals({number}))
        time.sleep(0)

unwind_on_signals()
try:
    Interrupted()
    time.sleep(60)
finally:
    print("unwound")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_where_python_drops_exceptions(number: signal.Signals) -> None:
    # When a command is interrupted in a destructor
    environment = os.environ | {"PYTHONPATH": str(Path(processes.__file__).parent)}
    command = [sys.executable, "-c", PROGRAM.format(number=number.value)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)

    # I expect it to leave its contexts, and to end as it does elsewhere
    assert ended.stdout == "unwound\n"
    assert ended.returncode in (128 + number, -number)
