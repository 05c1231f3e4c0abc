"""Debian packages that only the tests need."""

import shutil
import subprocess
from pathlib import Path

OPTIONAL = {
    "php": "php-cli",
    "crun": "crun",
    "runsc": "runsc",
    "mkfs.btrfs": "btrfs-progs",
    "chromium": "chromium",
    "docker-compose": "docker-compose",
    "nft": "nftables",
}  # programs and their packages: without one its tests are skipped


class PackageError(Exception):
    """A program that the tests need is missing. The message says which one, and how to install it."""


def install_for_tests() -> None:
    """Install what tests run. Raise `PackageError` if an image registry, `faketime` or Prometheus cannot be installed.

    Without one of the optional programs its tests are skipped.
    """
    for program in ("docker-registry", "faketime", "prometheus"):
        if not available(program, program):
            raise PackageError(f"{program} is missing: install it (on Debian: apt-get install {program}).")
    for program, package in OPTIONAL.items():
        available(program, package)


def available(program: str, package: str) -> bool:
    """Return whether a program exists, after trying to install its package (on Debian, as root)."""
    if shutil.which(program) is None:
        subprocess.run([Path(__file__).with_name("apt-install"), package], check=False)
    return shutil.which(program) is not None
