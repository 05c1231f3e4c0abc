"""Debian 13's Docker engine on Debian 12, so that the tests run on engines of two ages.

Its packages are unpacked below the state directory and not installed: the installed engine stays as it is. Its `runc`
and `docker-init` are the installed ones.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

RELEASE = "trixie"
PACKAGES = ("docker.io", "containerd")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class NewerDockerError(Exception):
    """The packages cannot be fetched; the message says why."""


def search_path(state: Path) -> str | None:
    """Return a `PATH` that begins with the newer engine's programs, None if this machine is not Debian 12 with root.

    The packages are fetched the first time only. Raises `NewerDockerError`.
    """
    release = platform.freedesktop_os_release()
    if (release.get("ID"), release.get("VERSION_ID")) != ("debian", "12") or os.geteuid() != 0:
        return None
    unpacked = state / f"docker-{RELEASE}"
    if not unpacked.is_dir():
        fetch(unpacked)
    return os.pathsep.join([str(unpacked / "usr" / "bin"), str(unpacked / "usr" / "sbin"), os.environ["PATH"]])


def fetch(destination: Path) -> None:
    """Unpack the packages into `destination`, which appears only when it is complete."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f"{destination.name}-") as made:
        directory = Path(made)
        (directory / "lists" / "partial").mkdir(parents=True)
        (directory / "cache" / "archives" / "partial").mkdir(parents=True)
        sources = directory / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {mirror()} {RELEASE} main\n")
        options = [
            f"-oDir::Etc::SourceList={sources}",
            "-oDir::Etc::SourceParts=/dev/null",
            f"-oDir::State::Lists={directory / 'lists'}",
            f"-oDir::Cache={directory / 'cache'}",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Retries=2",
        ]
        run(directory, "apt-get", "-q", *options, "update")
        run(directory, "apt-get", "-q", *options, "download", *PACKAGES)
        for package in directory.glob("*.deb"):
            run(directory, "dpkg-deb", "-x", str(package), "root")
        shutil.move(directory / "root", destination)


def mirror() -> str:
    """Return the address of the archive that this machine installs from."""
    command = (
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Origin: Debian",
        "Codename: bookworm",
    )
    found = run(None, *command).split()
    if not found:
        raise NewerDockerError("apt has no package lists of Debian 12: run apt-get update.")
    return found[0]


def run(directory: Path | None, *command: str) -> str:
    """Return what a command prints. Raises `NewerDockerError` with the end of its output if it fails."""
    try:
        return subprocess.run(command, cwd=directory, check=True, timeout=300, capture_output=True, text=True).stdout
    except subprocess.SubprocessError as error:
        output = f"{error.stdout or ''}{error.stderr or ''}" if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise NewerDockerError(
            f"Debian 13's Docker cannot be fetched: {' '.join(command[:2])} failed:\n{output[-1000:]}"
        ) from error
