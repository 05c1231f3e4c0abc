"""Small disks of their own, for engines that tests fill up."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.docker_daemons import own_daemon

MIB = 1024**2
_SECONDS = 60


@contextmanager
def engine_on_disk(image: Path, directory: Path, file_system: str, size_mib: int) -> Iterator[str]:
    """Run an engine of its own on a new file system. Skip the test if this machine cannot do that."""
    if not shutil.which("dockerd"):
        pytest.skip("needs dockerd")
    with _mounted(image, directory, file_system, size_mib), own_daemon(directory, firewall=False) as daemon:
        yield daemon.host


@contextmanager
def _mounted(image: Path, directory: Path, file_system: str, size_mib: int) -> Iterator[None]:
    """Mount a new file system in the file `image` at a directory."""
    make = f"mkfs.{file_system}"
    if os.geteuid() != 0 or not shutil.which(make) or not Path("/dev/loop-control").exists():
        pytest.skip(f"needs root, {make} and loop devices")
    with image.open("wb") as file:
        file.truncate(size_mib * MIB)
    subprocess.run([make, "-q", image], check=True, timeout=_SECONDS, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True, timeout=_SECONDS)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True, timeout=_SECONDS)
        image.unlink()
