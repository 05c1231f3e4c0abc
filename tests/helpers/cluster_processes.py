"""The processes of the test cluster's control plane and node, which tests kill and start again."""

import os
import signal
import subprocess
from pathlib import Path

from tests.helpers.waiting import wait_for


class ClusterProcess:
    """One process of a test cluster: `kubelet`, `apiserver` or `containerd`."""

    def __init__(self, cluster: Path, name: str) -> None:
        """`cluster` is the directory of the cluster."""
        self._cluster = cluster
        self._name = name
        self._pid_file = cluster / f"{name}.pid"
        pid = int(self._pid_file.read_text())
        self._command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]

    def kill(self) -> None:
        """Kill it, and wait until it has gone."""
        pid = int(self._pid_file.read_text())
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not _runs(pid), what=f"the end of {self._name}")

    def start(self) -> None:
        """Start it again, as it was started, by a shell that ends: it is not a child of the tests."""
        log = self._cluster / "logs" / f"{self._name}.log"
        neighbour = (self._cluster / "etcd.pid").read_text().strip()  # sees the cluster's directories, which may be its own
        inside = ["nsenter", f"--mount=/proc/{neighbour}/ns/mnt", f"--wdns={self._cluster}"]
        script = 'setsid "$@" </dev/null >>"$0" 2>&1 & echo $!'
        started = subprocess.run(
            [*inside, "sh", "-c", script, str(log), *self._command], stdout=subprocess.PIPE, text=True, check=True
        )
        self._pid_file.write_text(started.stdout)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
