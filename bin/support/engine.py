"""Find a Docker engine and make sure that it has `alpine:latest`. Start an engine for this repository if none answers.

    engine.py         print the address of an engine that keeps running, for a service whose jobs outlive it
    engine.py stop    stop an engine that was started this way, with all its containers

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
from own_engine.daemon import Daemon, DaemonError, answers

HOW_TO = "install it (on Debian: apt-get install docker.io) and start it, or set DOCKER_HOST to the address of one."


class EngineError(Exception):
    """No engine can be used. The message says what is missing and what to do."""


def state_directory() -> Path:
    """Return the directory of all state: `STATE_DIR`, by default var/."""
    return Path(os.environ.get("STATE_DIR") or Path(__file__).resolve().parent.parent.parent / "var").absolute()


@contextmanager
def borrowed(state: Path) -> Iterator[str]:
    """Provide the address of an engine for as long as the context lasts. Raise `EngineError` if there is none."""
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
def own(daemon: Daemon, images_of: str | None) -> Iterator[str]:
    """Run this engine for as long as the context lasts, and provide its address. Raise `DaemonError` if it does not start.

    It gets its image from the engine at the address `images_of`, if there is one.
    """
    host = daemon.start()
    try:
        image.ensure(host, images_of)
        yield host
    finally:
        daemon.stop()


def kept(state: Path) -> str:
    """Return the address of an engine. If one is started for this, it runs until `stop`. Raise `EngineError` if there is none."""
    daemon = Daemon(state / "engine")
    with locked(daemon.directory / "change.lock"):
        host = obtain(daemon)
        if host == daemon.host():
            daemon.keep()
    image.ensure(host)
    return host


def stop(state: Path) -> None:
    """Stop our own engine if it runs, even if it is in use."""
    daemon = Daemon(state / "engine")
    with locked(daemon.directory / "change.lock"):
        daemon.stop()


def obtain(daemon: Daemon) -> str:
    """Return the address of an engine that answers: that of `DOCKER_HOST`, else the machine's, else our own.

    Raise `EngineError` if none answers and none can be started.
    """
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
        raise EngineError(f"{error}\nNo Docker engine answers, and none can be started: {HOW_TO}") from error


def usual_hosts() -> list[str]:
    """Return the sockets that exist of the system's engine, a rootless one, and Docker Desktop."""
    paths = [Path("/var/run/docker.sock")]
    if os.environ.get("XDG_RUNTIME_DIR"):
        paths.append(Path(os.environ["XDG_RUNTIME_DIR"], "docker.sock"))
    paths += [Path.home() / ".docker" / "run" / "docker.sock", Path.home() / ".docker" / "desktop" / "docker.sock"]
    return [f"unix://{path}" for path in paths if path.is_socket()]


def refuse_forbidden_sockets() -> None:
    """Raise `EngineError` if this user has no access to one of the usual sockets."""
    for host in usual_hosts():
        if not os.access(host.removeprefix("unix://"), os.R_OK | os.W_OK):
            raise EngineError(f"This user cannot use the Docker engine at {host}: add it to the group docker and log in again.")


def install() -> None:
    """Install Debian's Docker engine. Raise `EngineError` if that is not possible."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise EngineError(f"No Docker engine answers: {HOW_TO}")
    packages = ["docker.io", "iptables", "iproute2", "nftables"]  # the last is for the rules of jobs' networks
    if subprocess.run([Path(__file__).with_name("apt-install"), *packages], check=False).returncode != 0:
        raise EngineError(f"No Docker engine answers, and docker.io cannot be installed: {HOW_TO}")


def stop_unless_used(daemon: Daemon, users: IO[str]) -> None:
    """Stop our own engine, unless it is to be kept or another command still uses it."""
    if daemon.host() is None or daemon.kept:
        return
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        daemon.stop()


@contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Iterator[IO[str]]:
    """Hold a lock that processes share. It ends with the process that holds it."""
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
