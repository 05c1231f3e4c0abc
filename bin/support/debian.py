"""Download packages of Debian, also from a network without a way out (see `isolated`)."""

import os
import subprocess
from pathlib import Path

OUTSIDE_VARIABLE = "ORCHESTRATOR_TEST_OUTSIDE"  # the namespace of a network that has a way out
TIMEOUT_SECONDS = 600


def download(directory: Path, *packages: str) -> None:
    """Download packages into a directory. Raise `OSError` or `SubprocessError` if that fails, also with new package lists."""
    fetch = ("download", *packages)
    try:
        _apt_get(directory, *fetch)
    except subprocess.CalledProcessError:
        _apt_get(directory, "update")
        _apt_get(directory, *fetch)


def _apt_get(directory: Path, *arguments: str) -> None:
    outside = os.environ.get(OUTSIDE_VARIABLE)
    elsewhere = ["nsenter", f"--net={outside}"] if outside else []
    command = [*elsewhere, "apt-get", "-q", *arguments]
    subprocess.run(command, cwd=directory, check=True, timeout=TIMEOUT_SECONDS, capture_output=True)
