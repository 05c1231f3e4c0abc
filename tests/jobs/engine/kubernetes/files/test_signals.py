"""The processes of a job and the mover, which see each other in the process namespace of their pod."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_for
from tests.jobs.engine.kubernetes.files.running_mover import PROGRAM, RunningMover, running_mover, wait_until_listening

pytestmark = [
    pytest.mark.stateless,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can make process namespaces"),
]

# PID 1 is the shell, in place of the pause process; one of the job's processes ignores SIGTERM.
POD = "sleep 1000 & (trap '' TERM; exec sleep 1001) & \"$@\" & wait; wait; wait"


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[RunningMover]:
    """A mover for outputs beside two processes of a job, in a process namespace of their own."""
    prefix = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", POD, "sh")
    with running_mover(tmp_path, role="outputs", prefix=prefix) as mover:
        wait_until_listening(mover)
        wait_for(lambda: len(sleeping(mover)) == 2)
        yield mover


def processes(mover: RunningMover) -> dict[int, str]:
    """Return the processes of the pod by their number on this machine, and how they were started."""
    found: dict[int, str] = {}
    pending = [mover.process.pid]
    while pending:
        process = pending.pop()
        try:
            found[process] = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
            pending += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return found


def sleeping(mover: RunningMover) -> list[str]:
    return sorted(command for command in processes(mover).values() if command.startswith("sleep"))


def test_a_signal_goes_to_all_processes_of_the_job_and_no_other(pod: RunningMover) -> None:
    files = pod.files()

    # When the job is ended, I expect that only the process that ignores it goes on
    assert files.signal(signal.SIGTERM) == 2
    wait_for(lambda: sleeping(pod) == ["sleep 1001 "])

    # When it is killed, I expect none
    assert files.signal(signal.SIGKILL) == 1
    wait_for(lambda: not sleeping(pod))
    assert files.signal(signal.SIGKILL) == 0
    assert files.stat("/workspace") is not None


def test_a_signal_may_go_to_the_first_process_alone(pod: RunningMover) -> None:
    # Given a process that was started from outside of the process namespace, as that of a container is
    own = next(number for number, command in processes(pod).items() if command.startswith("sleep 1000"))
    with subprocess.Popen(["nsenter", f"--target={own}", "--pid", "sh", "-c", "sleep 1002; :"]) as started:
        wait_for(lambda: pod.files().signal(0) == 4)

        assert pod.files().signal(signal.SIGKILL, first_only=True) == 1

        assert started.wait(20) != 0
    assert sleeping(pod) == ["sleep 1000 ", "sleep 1001 ", "sleep 1002 "]


def test_the_mover_survives_a_job_that_ends_all_processes(pod: RunningMover) -> None:
    # Given a job that sends SIGTERM to every process of its pod
    own = next(number for number, command in processes(pod).items() if command.startswith("sleep 1000"))
    subprocess.run(["nsenter", f"--target={own}", "--pid", "--mount", "sh", "-c", "kill -TERM -1"], check=False, timeout=20)
    wait_for(lambda: sleeping(pod) == ["sleep 1001 "])

    # I expect its outputs
    assert pod.files().stat("/workspace") is not None


def test_the_node_ends_the_mover(pod: RunningMover) -> None:
    number = next(number for number, command in processes(pod).items() if command.startswith(str(PROGRAM)))

    os.kill(number, signal.SIGTERM)

    wait_for(lambda: number not in processes(pod))
