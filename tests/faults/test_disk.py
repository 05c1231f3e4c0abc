"""The state directory's disk is full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.system import SystemOn, pass_time
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.long, pytest.mark.timeout(300)]

DISK_MIB = 250


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of its own with space for two transfers."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", directory], check=True, timeout=30)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True, timeout=30)


def fill(directory: Path) -> Path:
    """Fill the disk with a file, and return its path."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


def test_the_state_directory_is_full_for_a_while(system_on: SystemOn, small_disk: Path) -> None:
    with system_on(os.environ["DOCKER_HOST"], directory=small_disk) as system:
        # Given a mixed load with more downloads than fit on the disk
        system.start("worker-1", "worker-2")
        system.load.mixed(6, transfers=3)

        # When the disk is full, and a worker is restarted meanwhile
        filler = fill(small_disk)
        with system.load.posting_more():
            waiting = system.load.transfer()
            system.service.restart("worker-2")
            wait_for(lambda: "space on the worker's disk" in system.service.get_job(waiting.id).get("waiting", ""), 30)
            pass_time(2)
            filler.unlink()

        # I expect every job to wait for space, and to end as it must
        system.check()
        assert system.load.refusals == []
