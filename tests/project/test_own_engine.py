"""The engine that the commands find or start."""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import docker
import image
import pytest
from environment import without_service
from own_engine import firewall
from own_engine.daemon import Daemon
from processes import processes_with_argument

from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.network_rules import NetworkRules, bridge_name, rules_name
from jobs.engine.docker.firewall.nftables import Nftables
from tests.helpers.network_namespaces import Host, needs_namespaces
from tests.project.commands import ROOT, STOP_SECONDS


def hierarchies(process_groups: str | Path) -> list[str]:
    """Return the hierarchies of version 1 in a process's file `cgroup` (cgroups(7)), each as its mount options."""
    return [line.split(":")[1] for line in Path(process_groups).read_text().splitlines() if not line.startswith("0:")]


def test_an_engine_that_does_not_answer_is_reported_in_one_sentence(tmp_path: Path) -> None:
    environment = without_service() | {"DOCKER_HOST": f"unix://{tmp_path}/nothing.sock", "STATE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [ROOT / "bin" / "serve"], env=environment, capture_output=True, text=True, timeout=STOP_SECONDS, check=False
    )

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "DOCKER_HOST" in ended.stderr


@pytest.mark.stateless
@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dockerd"), reason="only root can start a dockerd")
@pytest.mark.parametrize("crashes", [False, True], ids=["stopped", "crashed"])
def test_an_engine_of_our_own_leaves_nothing(tmp_path: Path, crashes: bool) -> None:
    # Given an engine of our own that runs a container from the image that replaces alpine
    daemon = Daemon(tmp_path / "engine")
    host = daemon.start()
    try:
        with closing(docker.DockerClient(base_url=host)) as client:
            image.make(client)
            container = client.containers.run("alpine:latest", "id -un", user="nobody", detach=True)
            container.wait()
            assert container.logs() == b"nobody\n"
            client.containers.run("alpine:latest", "sleep 1000", detach=True)
        if crashes:
            os.kill(int((tmp_path / "engine" / "dockerd.pid").read_text()), signal.SIGKILL)
    finally:
        # When it is stopped, even after a crash
        daemon.stop()

    # I expect nothing to be left but its directory
    directory = urlsplit(host).path.removesuffix("/docker.sock")
    assert not Path(directory).exists()
    assert not processes_with_argument(str(tmp_path))
    assert not processes_with_argument(directory)
    assert daemon.bridge not in [name for _, name in socket.if_nameindex()]
    assert not [rule for table in firewall.TABLES for rule in firewall.rules("iptables", table) if daemon.bridge in rule]
    assert daemon.host() is None


@pytest.mark.stateless
@pytest.mark.skipif(os.geteuid() != 0 or "memory" not in hierarchies("/proc/self/cgroup"), reason="needs root and cgroup v1")
def test_an_engine_of_our_own_sees_every_hierarchy_of_control_groups(tmp_path: Path) -> None:
    # Given a mount namespace without most of them: containerd would report no statistics there
    seen = tmp_path / "cgroup"
    script = f"""
        umount --recursive --lazy /sys/fs/cgroup
        mount -t tmpfs cgroup /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory
        mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory
        exec "$0" sh -c 'cat /proc/self/cgroup > {seen}; cat /proc/mounts'
    """
    elsewhere = Path("/proc/mounts").read_text()

    # When the engine's command runs there
    command = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", script, ROOT / "bin/support/own_engine/with-cgroups")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=STOP_SECONDS, check=True)

    # I expect it to see each that exists once, and nothing to change elsewhere
    mounted = [f",{line.split()[3]}," for line in ended.stdout.splitlines() if line.split()[2] == "cgroup"]
    assert [hierarchy for hierarchy in hierarchies(seen) if sum(f",{hierarchy}," in options for options in mounted) != 1] == []
    assert Path("/proc/mounts").read_text() == elsewhere


@pytest.mark.stateless
@needs_namespaces
@pytest.mark.parametrize("program", [Nftables(10), Iptables(10)], ids=["nft", "iptables"])
def test_the_firewall_rules_of_jobs_go_with_the_network_of_our_engine(program: Nftables | Iptables) -> None:
    # Given rules of the service for two networks
    if not program.is_installed:
        pytest.skip(f"{program.name} is not installed")
    host, removed, other = Host(), "1" * 12, "2" * 12
    try:
        with host.entered():
            for network in (removed, other):
                program.install(NetworkRules(rules_name("orc", network), bridge_name(network), (), ()))

            # When our engine removes one of them
            firewall.remove_interface(bridge_name(removed))

            # I expect the rules of the other to stay as they were
            assert program.names() == [rules_name("orc", other)]
            assert program.installed(rules_name("orc", other))
    finally:
        host.remove()
