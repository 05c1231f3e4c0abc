"""Run a command in a network of its own, where nothing else takes a port, a bridge or a rule of the firewall: for root on Linux.

    isolated.py [--engine DIRECTORY] COMMAND...

The network has no way out; `debian` downloads packages by that of the caller. With --engine, the command has a Docker engine
of its own, with its files in that directory, in DOCKER_HOST. It gets `alpine:latest` from the engine that DOCKER_HOST named
before. Both end with the command.
"""

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from debian import OUTSIDE_VARIABLE
from engine import own
from image import ImageError
from own_engine.daemon import Daemon, DaemonError
from processes import interrupt, unwind_on_signals

STOP_SECONDS = 30


def is_possible() -> bool:
    """Return whether this machine and its user can have further networks and engines."""
    if not all(map(shutil.which, ("unshare", "ip", "dockerd"))):
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


def prefix(engine: Path | None) -> list[str]:
    """Return what runs the command behind it in a network of its own, and with an engine of its own if that has a directory."""
    options = ["--engine", str(engine)] if engine else []
    return ["unshare", "--net", sys.executable, __file__, *options]


def run(engine: Path | None, command: list[str]) -> int:
    """Run the command in this process's network, and return its exit code."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=30)
    with ExitStack() as cleanup:
        environment = os.environ | {OUTSIDE_VARIABLE: f"/proc/{os.getppid()}/ns/net"}
        if engine:
            environment["DOCKER_HOST"] = cleanup.enter_context(own(Daemon(engine), images_of=os.environ.get("DOCKER_HOST")))
        process = subprocess.Popen(command, env=environment)
        cleanup.callback(interrupt, process, STOP_SECONDS)
        return process.wait()


def main() -> int:
    unwind_on_signals()
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--engine", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        return run(arguments.engine, arguments.command)
    except (DaemonError, ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
