"""A Docker engine of our own, for machines without a running one.

All its files are in one directory, except those that dockerd always puts elsewhere: `traces` records before the start
which of them exist, and removes the others after the stop. It runs in its own mount namespace, so that its mounts end
with it, and on its own bridge: `docker0` may belong to another engine, and `bridge: none` makes dockerd delete that.
Its images stay in the directory as a cache.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import docker
from processes import end, process_ids, processes_with_argument, read

from own_engine import firewall
from own_engine.traces import Traces, control_groups

# The path of a unix socket has at most 107 bytes, and dockerd makes sockets below this directory.
MAX_RUN_DIRECTORY = 60
START_SECONDS = 60
STOP_SECONDS = 40
NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


class DaemonError(Exception):
    """dockerd did not start. The message is one sentence and the end of its log."""


class Daemon:
    """The engine whose files are in `directory`. Only one caller at a time may start or stop it (see `engine`).

    `options` are added to its configuration file. `search_path` is the `PATH` on which dockerd and its helpers are
    found, by default this process's own.
    """

    def __init__(self, directory: Path, options: Mapping[str, object] = NO_OPTIONS, *, search_path: str | None = None) -> None:
        self.directory = directory
        self._more_options = options
        self._environment = os.environ | ({"PATH": search_path} if search_path else {})
        self._record = directory / "engine.json"
        self._log = directory / "dockerd.log"
        self.process: subprocess.Popen[bytes] | None = None  # if this object has started it
        self._settings = directory / "daemon.json"
        self._pidfile = directory / "dockerd.pid"
        self.bridge = "orch" + hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]

    # -- state -------------------------------------------------------------------------------
    def host(self) -> str | None:
        """Return the address of the engine, None if it is not started."""
        try:
            return f"unix://{json.loads(self._record.read_text())['run']}/docker.sock"
        except (FileNotFoundError, ValueError):
            return None

    @property
    def kept(self) -> bool:
        """Return whether a command asked for this dockerd to keep running."""
        with suppress(FileNotFoundError):
            return (self.directory / "keep").read_text() == self._pidfile.read_text()
        return False

    def keep(self) -> None:
        """Keep the engine running when its users have ended, because jobs continue."""
        (self.directory / "keep").write_text(self._pidfile.read_text())

    # -- start ---------------------------------------------------------------------------------
    def start(self) -> str:
        """Start dockerd, wait until it answers, and return its address. Raise `DaemonError` if it does not answer."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.clear_away()  # after a crash: a containerd without its dockerd, or a dockerd that does not answer
        run = self._run_directory()
        self._record.write_text(json.dumps({"run": str(run), "traces": Traces.look().as_json()}))
        self._log.unlink(missing_ok=True)
        self._settings.write_text(json.dumps(self._options(run), indent=2))
        try:
            subprocess.run(["ip", "link", "add", self.bridge, "type", "bridge"], check=True, capture_output=True, timeout=30)
            return self._launch(f"unix://{run}/docker.sock", ["unshare", "--mount", "--propagation", "slave"])
        except BaseException:
            self.clear_away()
            raise

    def start_again(self, namespace: Path) -> str:
        """Start dockerd again after it ended, with its data and containers, and return its address.

        `namespace` is its mount namespace, which has the files of the running containers. Raise `DaemonError` if dockerd
        was not started before or does not answer.
        """
        host = self.host()
        if host is None:
            raise DaemonError("dockerd is not started in this directory, so it cannot be started again.")
        self._end_containerd()
        return self._launch(host, ["nsenter", f"--mount={namespace}"])

    def _end_containerd(self) -> None:
        """End containerd: until init has reaped it, the next dockerd considers it alive and waits for it."""
        directory = f"{json.loads(self._record.read_text())['run']}/exec/containerd"
        for pid in processes_with_argument(f"{directory}/containerd.toml"):
            end(pid, STOP_SECONDS)
        Path(directory, "containerd.pid").unlink(missing_ok=True)

    def _options(self, run: Path) -> dict[str, object]:
        return {
            "hosts": [f"unix://{run}/docker.sock"],
            "data-root": str(self.directory / "data"),
            "exec-root": str(run / "exec"),
            "pidfile": str(self._pidfile),
            "bridge": self.bridge,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "log-level": "warn",
            **self._more_options,
        }

    def _launch(self, host: str, within: list[str]) -> str:
        """Run dockerd within a command that chooses its mount namespace, and wait until it answers."""
        command = [*within, str(Path(__file__).with_name("with-cgroups")), "dockerd", "--config-file", str(self._settings)]
        with firewall.others_preserved(str(self._settings)):
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(
                    command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            deadline = time.monotonic() + START_SECONDS
            while not answers(host):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise DaemonError(f"dockerd did not start; the end of {self._log}:\n{self._last_words()}")
                time.sleep(0.1)
        return host

    def _run_directory(self) -> Path:
        run = self.directory / "run"
        if len(os.fsencode(run)) > MAX_RUN_DIRECTORY:
            parent = "/run" if os.access("/run", os.W_OK) else "/tmp"  # noqa: S108 - the directory in it has a random name
            return Path(tempfile.mkdtemp(prefix="orchestrator-engine-", dir=parent))
        run.mkdir(exist_ok=True)
        return run

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    # -- stop ----------------------------------------------------------------------------------
    def stop(self) -> None:
        """Stop it with all its containers, and leave nothing behind but its images."""
        host = self.host()
        bridges = self._remove_workloads(host) if host and answers(host) else []
        self.clear_away()
        for bridge in bridges:
            remove_bridge(bridge)

    def _remove_workloads(self, host: str) -> list[str]:
        """Remove containers and networks. Return the bridges of the networks, which the engine may have refused to remove."""
        bridges = []
        client = docker.DockerClient(base_url=host, timeout=60)
        try:
            for container in client.containers.list(all=True, ignore_removed=True):
                with suppress(docker.errors.APIError):  # already removed
                    container.remove(force=True, v=True)
            for network in client.networks.list(filters={"type": "custom"}):
                bridges.append(f"br-{str(network.id)[:12]}")
                with suppress(docker.errors.APIError):
                    network.remove()
        finally:
            client.close()
        return bridges

    def clear_away(self) -> None:
        """End all its processes and remove its traces. Do nothing if it is not started."""
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return
        with firewall.others_preserved(str(self._settings)):
            for pid in processes_with_argument(str(self._settings)):
                end(pid, STOP_SECONDS)
        # These are left only if dockerd was killed.
        for pid in processes_with_argument(f"{record['run']}/exec/containerd/"):
            end(pid, 2)
        self._end_containers()
        remove_bridge(self.bridge)
        Traces.from_json(record["traces"]).remove(str(self._settings))
        shutil.rmtree(record["run"], ignore_errors=True)
        if self.process:
            self.process.poll()
        for path in (self._record, self._pidfile, self.directory / "keep"):
            path.unlink(missing_ok=True)

    def _end_containers(self) -> None:
        directory = self.directory / "data" / "containers"
        names = [container.name for container in directory.iterdir()] if directory.is_dir() else []
        for pid in process_ids():
            if any(name.encode() in read(f"/proc/{pid}/cgroup") for name in names):
                end(pid, 0)
        for group in control_groups():
            for name in names:
                with suppress(OSError):  # dockerd has removed it, as it does unless it was killed
                    Path(group, name).rmdir()


def remove_bridge(name: str) -> None:
    """Remove a bridge, if it exists, and the firewall's rules for it."""
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True, timeout=30)
    firewall.remove_interface(name)


def answers(host: str) -> bool:
    """Return whether a Docker engine answers at `host` within seconds."""
    if host.startswith("unix://") and not connects(host.removeprefix("unix://")):
        return False
    try:
        client = docker.DockerClient(base_url=host, timeout=5)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return False


def connects(path: str) -> bool:
    """Return whether a process listens at this unix socket. docker-py would leak a socket that does not connect."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
