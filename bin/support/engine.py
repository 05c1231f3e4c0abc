"""Finds a Docker engine that has `alpine:latest`, and starts one where none answers.

    engine.py         prints the address of an engine that stays (for a service whose jobs outlive it)
    engine.py stop    stops one that was started so, with all its containers

Commands that end use `borrowed` instead: the last of them stops an engine that was started for them.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import image
from dockerd import Daemon, DaemonError, answers

HOW_TO = "install it (on Debian: apt-get install docker.io) and start it, or let DOCKER_HOST say where one is."


class EngineError(Exception):
    """There is no engine to be had; the message says what is missing and how to get it."""


def state_directory() -> Path:
    """Where all state lies (`STATE_DIR`, else var/)."""
    return Path(os.environ.get("STATE_DIR") or Path(__file__).resolve().parent.parent.parent / "var").absolute()


@contextmanager
def borrowed(state: Path) -> Iterator[str]:
    """The address of an engine for as long as the context lasts. Raises `EngineError`."""
    daemon = Daemon(state / "engine")
    changing = daemon.directory / "change.lock"
    with locked(daemon.directory / "users.lock", fcntl.LOCK_SH) as users:
        with locked(changing):
            host = obtain(daemon)
        try:
            image.ensure(host)
            yield host
        finally:
            with locked(changing):
                stop_unless_used(daemon, users)


@contextmanager
def own(daemon: Daemon) -> Iterator[str]:
    """The address of this very engine, which runs for as long as the context lasts. Raises `DaemonError`."""
    host = daemon.start()
    try:
        image.ensure(host)
        yield host
    finally:
        daemon.stop()


def kept(state: Path) -> str:
    """The address of an engine; one that had to be started stays until somebody stops it. Raises `EngineError`."""
    daemon = Daemon(state / "engine")
    with locked(daemon.directory / "change.lock"):
        host = obtain(daemon)
        if host == daemon.host():
            daemon.keep()
    image.ensure(host)
    return host


def stop(state: Path) -> None:
    """Stop our own engine, whoever uses it; nothing where none runs."""
    daemon = Daemon(state / "engine")
    with locked(daemon.directory / "change.lock"):
        daemon.stop()


def obtain(daemon: Daemon) -> str:
    """The address of an engine that answers: the one asked for, the machine's, or our own. Raises `EngineError`."""
    wanted = os.environ.get("DOCKER_HOST")
    if wanted:
        if not answers(wanted):
            raise EngineError(f"No Docker engine answers at {wanted} (DOCKER_HOST): start it, or unset DOCKER_HOST.")
        return wanted
    for host in (*usual_hosts(), daemon.host()):
        if host and answers(host):
            return host
    refuse_forbidden_sockets()
    if not shutil.which("dockerd"):
        install()
    try:
        return daemon.start()
    except (DaemonError, OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"{error}\nNo Docker engine answers, and none could be started: {HOW_TO}") from error


def usual_hosts() -> list[str]:
    """The system's socket, a rootless engine's, Docker Desktop's."""
    paths = [Path("/var/run/docker.sock")]
    if os.environ.get("XDG_RUNTIME_DIR"):
        paths.append(Path(os.environ["XDG_RUNTIME_DIR"], "docker.sock"))
    paths += [Path.home() / ".docker" / "run" / "docker.sock", Path.home() / ".docker" / "desktop" / "docker.sock"]
    return [f"unix://{path}" for path in paths if path.is_socket()]


def refuse_forbidden_sockets() -> None:
    for host in usual_hosts():
        if not os.access(host.removeprefix("unix://"), os.R_OK | os.W_OK):
            raise EngineError(f"This user may not use the Docker engine at {host}: add it to the group docker and log in again.")


def install() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise EngineError(f"No Docker engine answers: {HOW_TO}")
    packages = ["docker.io", "iptables", "iproute2"]
    if subprocess.run([Path(__file__).with_name("apt-install"), *packages], check=False).returncode != 0:
        raise EngineError(f"No Docker engine answers, and docker.io could not be installed: {HOW_TO}")


def stop_unless_used(daemon: Daemon, users: IO[str]) -> None:
    """Stop our own engine, unless it is to be kept or another command uses it, which will stop it then."""
    if daemon.host() is None or daemon.kept:
        return
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        daemon.stop()


@contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Iterator[IO[str]]:
    """Hold a lock between processes; it ends with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, operation)
        yield file


def main() -> int:
    try:
        if sys.argv[1:] == ["stop"]:
            stop(state_directory())
        else:
            print(kept(state_directory()))
    except (EngineError, image.ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
