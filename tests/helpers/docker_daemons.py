"""Docker daemons that belong to one test, which may stop, kill, freeze and restart them."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import image
from own_engine.daemon import Daemon, answers, remove_bridge

STOP_SECONDS = 60


class OwnDaemon:
    """A dockerd with `alpine:latest`, independent of the engine under test.

    `directory` must be a short path: it contains the socket, whose path has at most 107 bytes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        live_restore: bool = False,
        runtime: Path | None = None,
        runtimes: Mapping[str, object] | None = None,
        firewall: bool = True,
    ) -> None:
        """`runtime` is a program to be used in place of runc, `runtimes` are others that jobs may use.

        With `firewall`, the rules of other daemons are away for a moment at the start: a test that needs them runs alone.
        """
        self.host = f"unix://{directory}/run/docker.sock"
        options: dict[str, object] = {"live-restore": live_restore, "runtimes": dict(runtimes or {}), "iptables": firewall}
        if runtime:
            options |= {"default-runtime": "given", "runtimes": {"given": {"path": str(runtime)}}}
        self._daemon = Daemon(directory, options)
        self._namespace = -1  # file descriptor that keeps its mount namespace

    def start(self) -> str:
        """Start the daemon, and return its host."""
        assert self._daemon.start() == self.host, "the path of the directory is too long"
        self._namespace = os.open(f"/proc/{self._dockerd.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        image.ensure(self.host, os.environ.get("DOCKER_HOST"))
        return self.host

    @property
    def keeps_exit_codes(self) -> bool:
        """Whether the daemon learns the exit code of a process that ended while it was down.

        Docker 20.10 does. Docker 26 does not if dockerd runs containerd itself, as here: the exit code is lost with that
        containerd.
        """
        with closing(docker.DockerClient(base_url=self.host)) as client:
            return int(client.version()["Version"].partition(".")[0]) < 26

    # -- faults --------------------------------------------------------------------------
    def kill(self) -> None:
        """Kill only dockerd, as a crash does. The containers run on."""
        self._dockerd.kill()
        self._dockerd.wait()

    def terminate(self) -> None:
        """Stop dockerd and wait for its end."""
        self.ask_to_stop()
        self.wait_until_stopped()

    def ask_to_stop(self) -> None:
        self._dockerd.send_signal(signal.SIGTERM)

    def wait_until_stopped(self) -> None:
        self._dockerd.wait(STOP_SECONDS)

    def freeze(self) -> None:
        """Stop answering without refusing connections."""
        self._dockerd.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._dockerd.pid, os.WSTOPPED)

    def thaw(self) -> None:
        self._dockerd.send_signal(signal.SIGCONT)

    def lose_host(self) -> None:
        """Kill everything at once, as a power cut does: only what is on the disk remains."""
        with closing(docker.DockerClient(base_url=self.host)) as client:
            bridges = [f"br-{str(network.id)[:12]}" for network in client.networks.list(filters={"type": "custom"})]
        self.kill()
        self._daemon.clear_away()
        for bridge in bridges:
            remove_bridge(bridge)
        self._leave_namespace()

    def forget_in_containerd(self, container_id: str) -> None:
        """Delete an ended container from containerd, as dockerd does when it has been notified of the end."""
        containerd = self.host.removeprefix("unix://").replace("docker.sock", "exec/containerd/containerd.sock")
        for kind in ("tasks", "containers"):
            command = ["ctr", "--address", containerd, "--namespace", "moby", kind, "delete", container_id]
            subprocess.run(command, check=True, timeout=STOP_SECONDS)

    def start_again(self) -> None:
        """Start dockerd with what is on the disk, and wait until it answers."""
        if self._namespace < 0:
            self.start()
        else:
            self._daemon.start_again(Path(f"/proc/{os.getpid()}/fd/{self._namespace}"))

    # -- clean-up ---------------------------------------------------------------------------------------
    def close(self) -> None:
        """Remove the daemon and all its data, in whatever state it is."""
        try:
            if self._namespace >= 0:
                self.thaw()
                if not answers(self.host):  # only the daemon itself can remove its networks
                    self.wait_until_stopped()
                    self.start_again()
        finally:
            self._daemon.stop()
            self._leave_namespace()

    def _leave_namespace(self) -> None:
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    @property
    def _dockerd(self) -> subprocess.Popen[bytes]:
        assert self._daemon.process is not None, "the daemon was not started"
        return self._daemon.process


@contextmanager
def own_daemon(directory: Path, **options: Any) -> Iterator[OwnDaemon]:
    """Start a daemon with the options of `OwnDaemon`, and remove it at the end."""
    daemon = OwnDaemon(directory, **options)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
