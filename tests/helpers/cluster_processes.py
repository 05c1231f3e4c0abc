"""The processes of the test cluster's control plane and node, which tests kill and start again."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from urllib3.exceptions import HTTPError

from tests.helpers.clusters import Admin
from tests.helpers.ports import hold
from tests.helpers.waiting import wait_for

_CONTROLLERS: Final = ("controller-manager", "scheduler")
_MORE_REQUESTS: Final = ("--kube-api-qps=500", "--kube-api-burst=500")
_READY_SECONDS: Final = 90.0
_PAUSE: Final = 0.25
_PORT_OPTION: Final = "--secure-port"  # of the API server


@contextmanager
def without(process: str, admin: Admin) -> Iterator[None]:
    """Kill the `kubelet` or the `apiserver` of a test cluster, and start it again when the context ends.

    What depends on the API server is restarted after it: it would look for it less and less often, and the cluster would do
    nothing for up to a minute after its return. Elsewhere the controllers end as well, when they have lost their leases.
    After the kubelet it is the scheduler: it may miss that the node takes pods again, and then tries one that it had no node for
    only after five minutes.
    """
    harmed = ClusterProcess(admin.directory, process)
    harmed.kill()
    try:
        yield
    finally:
        harmed.start()
        wait_for(lambda: _is_ready(admin), _READY_SECONDS, "the cluster to be ready", step=_PAUSE)
        if process == "apiserver":
            restart_controllers(admin)
            ClusterProcess(admin.directory, "kubelet").restart()
        else:
            ClusterProcess(admin.directory, "scheduler").restart(*_MORE_REQUESTS)


def restart_controllers(admin: Admin) -> None:
    """Restart the controllers of a test cluster, and let them send more than the few requests a second that they would else."""
    for name in _CONTROLLERS:
        ClusterProcess(admin.directory, name).restart(*_MORE_REQUESTS)


def _is_ready(admin: Admin) -> bool:
    """Whether the API server answers, counts the kubelet as alive, as it does for a while after its end, and reaches it.

    The node takes pods by then.
    """
    with suppress(HTTPError, AssertionError):
        (node,) = admin("GET", "/api/v1/nodes")["items"]
        admin("GET", f"/api/v1/nodes/{node['metadata']['name']}/proxy/configz")
        is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
        return is_ready and not node["spec"].get("taints")
    return False


class ClusterProcess:
    """One process of a test cluster."""

    def __init__(self, cluster: Path, name: str) -> None:
        """`cluster` is the directory of the cluster."""
        self._cluster = cluster
        self._name = name
        self._pid_file = cluster / f"{name}.pid"
        pid = int(self._pid_file.read_text())
        self._command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        self._held_port: socket.socket | None = None

    def kill(self) -> None:
        """Kill it, wait until it has gone, and keep its port free for it."""
        pid = int(self._pid_file.read_text())
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not _runs(pid), what=f"the end of {self._name}")
        if _PORT_OPTION in self._command:
            self._held_port = hold(int(self._command[self._command.index(_PORT_OPTION) + 1]))

    def restart(self, *options: str) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start(*options)

    def start(self, *options: str) -> None:
        """Start it again, as it was started, by a shell that ends: it is not a child of the tests. Add these options."""
        log = self._cluster / "logs" / f"{self._name}.log"
        neighbour = (self._cluster / "etcd.pid").read_text().strip()  # sees the cluster's directories, which may be its own
        inside = ["nsenter", f"--mount=/proc/{neighbour}/ns/mnt", f"--wdns={self._cluster}"]
        script = 'setsid "$@" </dev/null >>"$0" 2>&1 & echo $!'
        command = [*self._command, *(option for option in options if option not in self._command)]
        if self._held_port is not None:
            self._held_port.close()
        started = subprocess.run([*inside, "sh", "-c", script, str(log), *command], stdout=subprocess.PIPE, text=True, check=True)
        self._pid_file.write_text(started.stdout)


def _runs(pid: int) -> bool:
    """Return whether a thread of the process runs. The first may be over while others still keep its ports."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False
