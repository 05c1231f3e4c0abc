"""Docker engines of a test's own, to be stopped, killed, frozen and started again as no shared one may be."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import image
from dockerd import Daemon, answers, remove_bridge

STOP_SECONDS = 60


class OwnDaemon:
    """A dockerd with `alpine:latest`, beside the session's engine and without harm to it.

    `directory` is a short path: its socket lies there, at an address that stays, and that holds 107 bytes.
    """

    def __init__(self, directory: Path, *, live_restore: bool = False, runtime: Path | None = None) -> None:
        """`runtime`: a program to be run in place of runc."""
        self.host = f"unix://{directory}/run/docker.sock"
        runtimes = {"default-runtime": "given", "runtimes": {"given": {"path": str(runtime)}}} if runtime else {}
        self._daemon = Daemon(directory, {"live-restore": live_restore, **runtimes})
        self._namespace = -1  # a descriptor of its mount namespace, which lives on with it

    def start(self) -> str:
        """Start it with nothing but its images; the address at which it answers."""
        assert self._daemon.start() == self.host, "the path of its directory is too long"
        self._namespace = os.open(f"/proc/{self._dockerd.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        image.ensure(self.host)
        return self.host

    @property
    def keeps_exit_codes(self) -> bool:
        """Whether it learns how a process ended while it was away.

        Docker 20.10 does. Docker 26 does not if dockerd runs its containerd itself, as it does here: the exit code is
        lost with that containerd.
        """
        with closing(docker.DockerClient(base_url=self.host)) as client:
            return int(client.version()["Version"].partition(".")[0]) < 26

    # -- what happens to it --------------------------------------------------------------------------
    def kill(self) -> None:
        """End dockerd alone, as a crash does. The containers run on."""
        self._dockerd.kill()
        self._dockerd.wait()

    def terminate(self) -> None:
        """Ask dockerd to stop, and wait until it has."""
        self.ask_to_stop()
        self.wait_until_stopped()

    def ask_to_stop(self) -> None:
        self._dockerd.send_signal(signal.SIGTERM)

    def wait_until_stopped(self) -> None:
        self._dockerd.wait(STOP_SECONDS)

    def freeze(self) -> None:
        """Let it answer nothing, and refuse nothing either."""
        self._dockerd.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._dockerd.pid, os.WSTOPPED)

    def thaw(self) -> None:
        self._dockerd.send_signal(signal.SIGCONT)

    def lose_host(self) -> None:
        """End all of it at once, as a power cut does: what lies on the disk is all that stays."""
        with closing(docker.DockerClient(base_url=self.host)) as client:
            bridges = [f"br-{str(network.id)[:12]}" for network in client.networks.list(filters={"type": "custom"})]
        self.kill()
        self._daemon.clear_away()
        for bridge in bridges:
            remove_bridge(bridge)
        self._leave_namespace()

    def forget_in_containerd(self, container_id: str) -> None:
        """Let containerd know nothing of an ended container, as after a dockerd that has heard of its end."""
        containerd = self.host.removeprefix("unix://").replace("docker.sock", "exec/containerd/containerd.sock")
        for kind in ("tasks", "containers"):
            command = ["ctr", "--address", containerd, "--namespace", "moby", kind, "delete", container_id]
            subprocess.run(command, check=True, timeout=STOP_SECONDS)

    def start_again(self) -> None:
        """Start dockerd on what there is of it, and wait until it answers."""
        if self._namespace < 0:
            self.start()
        else:
            self._daemon.start_again(Path(f"/proc/{os.getpid()}/fd/{self._namespace}"))

    # -- the end ---------------------------------------------------------------------------------------
    def close(self) -> None:
        """Leave nothing of it, in whatever state it is."""
        try:
            if self._namespace >= 0:
                self.thaw()
                if not answers(self.host):  # its networks are taken away by itself alone
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
        assert self._daemon.process is not None, "it was not started"
        return self._daemon.process


@contextmanager
def own_daemon(directory: Path, *, live_restore: bool = False, runtime: Path | None = None) -> Iterator[OwnDaemon]:
    """One that runs, and of which nothing is left at the end."""
    daemon = OwnDaemon(directory, live_restore=live_restore, runtime=runtime)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
