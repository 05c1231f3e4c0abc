"""Run a command beside a Kubernetes cluster of its own: `cluster.py TOOLS COMMAND...`.

TOOLS is a directory with the programs `up` and `down`, which start and end a cluster. If they are not there, the command runs
without one. KUBECONFIG tells the command where the cluster is. Everything that was started ends with it, however it ends.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import EngineError, borrowed, state_directory
from image import NAME, TAG, ImageError
from own_cluster import traces
from processes import interrupt, unwind_on_signals

UP_SECONDS = 300
DOWN_SECONDS = 120
STOP_SECONDS = 60


class ClusterError(Exception):
    """The cluster did not start. The message says where to look."""


@contextmanager
def cluster(tools: Path, state: Path) -> Iterator[Path]:
    """Provide the kubeconfig of a cluster that has `alpine:latest`, for as long as the context lasts.

    Raise `ClusterError`, and `EngineError` or `ImageError` if there is no engine from which it could take the image.
    """
    directory = state / "kubernetes"
    name = name_of(directory)
    with borrowed(state) as host, traces.removed(name):
        end(tools, directory)  # that of a command which was killed
        try:
            yield start(tools, directory, name, host)
        finally:
            end(tools, directory)


def name_of(directory: Path) -> str:
    """Return the name of the control groups of a cluster in this directory."""
    return f"orchestrator-{hashlib.sha256(bytes(directory)).hexdigest()[:8]}"


def start(tools: Path, directory: Path, name: str, host: str) -> Path:
    """Start the cluster, and return the path of its kubeconfig. Raise `ClusterError`."""
    command = traces.isolated(name, tools / "up", directory, f"{NAME}:{TAG}")
    environment = os.environ | {"DOCKER_HOST": host}
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=UP_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"The Kubernetes cluster did not start.\n{last_lines(directory / 'logs')}") from error
    return Path(done.stdout.strip())


def last_lines(logs: Path) -> str:
    """Return the end of each log: they are removed with the cluster."""
    return "\n".join(f"{path.name}: {line}" for path in sorted(logs.glob("*.log")) for line in path.read_text().splitlines()[-3:])


def end(tools: Path, directory: Path) -> None:
    """End the cluster in this directory and remove it, if there is one."""
    if directory.exists():
        subprocess.run([tools / "down", directory], check=False, timeout=DOWN_SECONDS)


def run(command: list[str], **variables: str) -> int:
    """Return the exit code of a command."""
    process = subprocess.Popen(command, env=os.environ | variables)
    try:
        return process.wait()
    finally:
        interrupt(process, STOP_SECONDS)


def main() -> int:
    unwind_on_signals()
    tools, command = Path(sys.argv[1]), sys.argv[2:]
    if not (tools / "up").exists():
        print(f"No Kubernetes cluster is started: {tools / 'up'} is not there.", flush=True)
        return run(command)
    try:
        with cluster(tools.resolve(), state_directory()) as kubeconfig:
            return run(command, KUBECONFIG=str(kubeconfig))
    except (ClusterError, EngineError, ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
