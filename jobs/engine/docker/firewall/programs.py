"""Runs the programs that change the firewall of this network namespace."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

_MORE_DIRECTORIES: Final = ("/usr/sbin", "/sbin")  # often not in the PATH of services and ordinary users
_CAP_NET_ADMIN: Final = 12
_MAX_ERROR: Final = 500  # characters


class FirewallError(Exception):
    """A program is missing or has failed. The message is its own."""


def search_path() -> str:
    return os.pathsep.join([*os.get_exec_path(), *_MORE_DIRECTORIES])


def is_installed(program: str) -> bool:
    return shutil.which(program, path=search_path()) is not None


def may_change_firewall() -> bool:
    """Return whether this process has the capability NET_ADMIN, as root mostly has."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)


def run(program: str, *arguments: str, text: str = "", timeout: float) -> str:
    """Run a program with `text` as its input, and return its output. Raise `FirewallError`."""
    path = search_path()
    found = shutil.which(program, path=path)
    if found is None:
        raise FirewallError(f"{program} is not installed")
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and no argument or text is a client's
            [found, *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            env={"PATH": path, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"{program} cannot be run: {error}") from error
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise FirewallError(f"{program} has failed: {words[:_MAX_ERROR]}")
    return done.stdout
