"""Debian's packages that only the tests need."""

import shutil
import subprocess
from pathlib import Path


class PackageError(Exception):
    """A program that the tests need is missing; the message says which, and how to get it."""


def install_for_tests() -> None:
    """Have a registry, clocks to move, and PHP where it can be had: without PHP its tests are skipped. Raises `PackageError`."""
    for program in ("docker-registry", "faketime"):
        if not available(program, program):
            raise PackageError(f"{program} is missing: install it (on Debian: apt-get install {program}).")
    available("php", "php-cli")


def available(program: str, package: str) -> bool:
    """Whether there is such a program, if need be after its package was installed (on Debian, as root)."""
    if shutil.which(program) is None:
        subprocess.run([Path(__file__).with_name("apt-install"), package], check=False)
    return shutil.which(program) is not None
