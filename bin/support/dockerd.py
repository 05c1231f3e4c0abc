"""A Docker engine of our own, for machines where none answers.

Everything of it lies in one directory, except what dockerd cannot be told to put elsewhere: that is noted
before the start (`traces`) and taken away after the stop. It runs in a mount namespace of its own, so that its
mounts end with it, and on a bridge of its own: `docker0` may be another engine's, and with `bridge: none` dockerd
deletes that. Its images stay in the directory, as a cache.
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
import firewall
from processes import end, process_ids, processes_with_argument, read
from traces import Traces, control_groups

# A unix socket's address holds 107 bytes; dockerd makes its own below the directory it is given.
LONGEST_RUN_DIRECTORY = 60
START_SECONDS = 60
STOP_SECONDS = 40
NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


class DaemonError(Exception):
    """dockerd did not start; the message is one sentence and the end of its log."""


class Daemon:
    """The engine whose files are in `directory`. Start and stop are for one caller at a time (see `engine`).

    `options` go to its configuration file, beside those that keep it apart from other engines. `search_path` is the
    `PATH` on which dockerd and its helpers are found, by default this process's own.
    """

    def __init__(self, directory: Path, options: Mapping[str, object] = NO_OPTIONS, *, search_path: str | None = None) -> None:
        self.directory = directory
        self._more_options = options
        self._environment = os.environ | ({"PATH": search_path} if search_path else {})
        self._record = directory / "engine.json"
        self._log = directory / "dockerd.log"
        self.process: subprocess.Popen[bytes] | None = None  # where this very object has started it
        self._settings = directory / "daemon.json"
        self._pidfile = directory / "dockerd.pid"
        self.bridge = "orch" + hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]

    # -- what there is -------------------------------------------------------------------------
    def host(self) -> str | None:
        """Where the engine answers, None where it was never started or stopped."""
        try:
            return f"unix://{json.loads(self._record.read_text())['run']}/docker.sock"
        except (FileNotFoundError, ValueError):
            return None

    @property
    def kept(self) -> bool:
        """Whether somebody who is gone meanwhile wants this very process to stay."""
        with suppress(FileNotFoundError):
            return (self.directory / "keep").read_text() == self._pidfile.read_text()
        return False

    def keep(self) -> None:
        """Let the engine run on when its users have gone, because jobs do."""
        (self.directory / "keep").write_text(self._pidfile.read_text())

    # -- start ---------------------------------------------------------------------------------
    def start(self) -> str:
        """Start dockerd and wait until it answers: its address. Raises `DaemonError`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.clear_away()  # what a crash left: a containerd without its dockerd, or a dockerd that does not answer
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
        """Start dockerd, which has ended, on all that it left: its address. Raises `DaemonError`.

        `namespace` is its mount namespace, where the files of the containers are that still run.
        """
        host = self.host()
        if host is None:
            raise DaemonError("dockerd was never started here, or was stopped: there is nothing to start it on.")
        self._end_containerd()
        return self._launch(host, ["nsenter", f"--mount={namespace}"])

    def _end_containerd(self) -> None:
        """It ends with its dockerd; but until init has reaped it, the next dockerd takes it for alive, and waits for it."""
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
        """Run dockerd by way of a command that chooses its mount namespace, and wait until it answers."""
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
        if len(os.fsencode(run)) > LONGEST_RUN_DIRECTORY:
            return Path(tempfile.mkdtemp(prefix="orchestrator-engine-", dir="/run" if os.access("/run", os.W_OK) else "/tmp"))  # noqa: S108
        run.mkdir(exist_ok=True)
        return run

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    # -- stop ----------------------------------------------------------------------------------
    def stop(self) -> None:
        """Stop it with all its containers, and leave nothing behind but its images."""
        host = self.host()
        kept = self._remove_workloads(host) if host and answers(host) else []
        self.clear_away()
        for bridge in kept:
            remove_bridge(bridge)

    def _remove_workloads(self, host: str) -> list[str]:
        """Containers and networks; the bridges of those networks that the engine would not part with."""
        kept = []
        client = docker.DockerClient(base_url=host, timeout=60)
        try:
            for container in client.containers.list(all=True, ignore_removed=True):
                with suppress(docker.errors.APIError):  # removed meanwhile
                    container.remove(force=True, v=True)
            for network in client.networks.list(filters={"type": "custom"}):
                try:
                    network.remove()
                except docker.errors.APIError:
                    kept.append(f"br-{str(network.id)[:12]}")
        finally:
            client.close()
        return kept

    def clear_away(self) -> None:
        """End what runs of it and take its traces away. Does nothing where there are none."""
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return
        with firewall.others_preserved(str(self._settings)):
            for pid in processes_with_argument(str(self._settings)):
                end(pid, STOP_SECONDS)
        # The rest is only there where dockerd was killed and could not end it.
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
                with suppress(OSError):  # dockerd has removed it, as it does unless it is killed
                    Path(group, name).rmdir()


def remove_bridge(name: str) -> None:
    """With the firewall's rules for it; no error where it is gone."""
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True, timeout=30)
    firewall.remove_interface(name)


def answers(host: str) -> bool:
    """Whether a Docker engine answers there within seconds."""
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
    """Whether somebody listens at this unix socket. Asked first, as docker-py leaks a socket that does not connect."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
