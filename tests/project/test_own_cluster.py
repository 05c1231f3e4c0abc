"""`cluster.py` runs a command beside a Kubernetes cluster, and leaves nothing of it. Scripts play the cluster here."""

import os
import shutil
import subprocess
import sys
import uuid
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import cluster
import pytest
from own_cluster.traces import in_namespace
from own_engine import firewall
from processes import runs

pytestmark = [
    pytest.mark.stateless,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a cluster needs Linux and root"),
]

ROOT: Final = Path(__file__).resolve().parents[2]
UP: Final = """#!/bin/sh
mkdir -p "$1/logs" && cd "$1"
echo "the image is $2, the engine $DOCKER_HOST" >logs/kubelet.log
cat /proc/self/cgroup >groups
setsid sleep 300 >/dev/null 2>&1 &
echo $! >pid
touch /run/netns/of-a-pod
"""
DOWN: Final = """#!/bin/sh
rm -rf "$1"
"""
FIND: Final = """
import os, sys
for directory, subdirectories, _ in os.walk("/sys/fs/cgroup"):  # goes on if groups of others are removed meanwhile
    if sys.argv[1] in subdirectories:
        print(directory)
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that start and end a cluster of one process, which does not end with it, and an engine to take images from."""
    monkeypatch.setattr(cluster, "borrowed", lambda _: nullcontext("unix:///the/engine"))
    return made(tmp_path / "tools", f'{UP}echo "$1/kubeconfig"')


def made(directory: Path, up: str) -> Path:
    directory.mkdir()
    for name, text in (("up", up), ("down", DOWN)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return directory


def has_groups(state: Path) -> bool:
    """Return whether there are control groups of the cluster whose directory is below `state`."""
    command = [*in_namespace(), sys.executable, "-c", FIND, cluster.name_of(state / "kubernetes")]
    return bool(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_cluster_runs_in_control_groups_of_its_own_and_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    # When a cluster is used
    with cluster.cluster(tools, tmp_path) as kubeconfig:
        directory = kubeconfig.parent
        pid = int((directory / "pid").read_text())
        inside = set((directory / "groups").read_text().split())

        # I expect its images to come from the engine
        assert directory == tmp_path / "kubernetes"
        assert (directory / "logs" / "kubelet.log").read_text() == "the image is alpine:latest, the engine unix:///the/engine\n"

        # And its processes to see no control groups but their own
        if any(line.startswith("cgroup ") for line in Path("/proc/mounts").read_text().splitlines()):
            assert {line.split(":")[2] for line in inside if not line.startswith("0:")} == {"/"}
            assert has_groups(tmp_path)
        assert not Path("/run/netns/of-a-pod").exists()

    # And at the end neither directory, process nor control group
    assert not directory.exists()
    assert not runs(pid)
    assert not has_groups(tmp_path)


def test_a_cluster_ends_however_its_command_ends(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), cluster.cluster(tools, tmp_path):
        raise KeyboardInterrupt

    assert not (tmp_path / "kubernetes").exists()


def test_a_cluster_that_does_not_start_says_why(tools: Path, tmp_path: Path) -> None:
    (tools / "up").write_text(f"{UP}exit 1\n")

    with (
        pytest.raises(cluster.ClusterError, match=r"did not start.\nkubelet.log: the image is"),
        cluster.cluster(tools, tmp_path),
    ):
        pass

    assert not (tmp_path / "kubernetes").exists()


def test_the_cluster_of_a_command_that_was_killed_is_ended_first(tools: Path, tmp_path: Path) -> None:
    # Given what such a command has left
    (tmp_path / "kubernetes" / "etcd").mkdir(parents=True)

    # I expect the next one to have a new cluster
    with cluster.cluster(tools, tmp_path) as kubeconfig:
        assert not (kubeconfig.parent / "etcd").exists()


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
def test_only_the_chains_of_the_cluster_are_removed_from_the_firewall(tools: Path, tmp_path: Path) -> None:
    # Given a chain of another cluster, and a cluster that makes one, with a rule that jumps there
    theirs, ours = f"KUBE-{uuid.uuid4().hex[:12]}", f"KUBE-{uuid.uuid4().hex[:12]}"
    (tools / "up").write_text(f"{UP}iptables -w -t nat -N {ours}\niptables -w -t nat -A OUTPUT -j {ours}\n")
    firewall.change("iptables", "nat", "-N", theirs)
    try:
        # When it has ended
        with cluster.cluster(tools, tmp_path):
            assert any(ours in rule for rule in firewall.rules("iptables", "nat"))

        # I expect the other one's to be left
        left = firewall.rules("iptables", "nat")
        assert not [rule for rule in left if ours in rule]
        assert f"-N {theirs}" in left
    finally:
        firewall.change("iptables", "nat", "-X", theirs)


def test_without_the_programs_the_command_runs_without_a_cluster(tmp_path: Path) -> None:
    program = ROOT / "bin" / "support" / "cluster.py"
    command = [sys.executable, program, tmp_path / "missing", "sh", "-c", 'echo "cluster: $KUBECONFIG"; exit 3']
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (
        3,
        f"No Kubernetes cluster is started: {tmp_path}/missing/up is not there.\ncluster: \n",
    )
