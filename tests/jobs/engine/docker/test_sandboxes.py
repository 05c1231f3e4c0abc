"""Docker's network sandboxes: what a job sees in one, what it leaves there, and the program (docs/adr/0018)."""

import os
import platform
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.docker import DockerEngine, sandboxes
from jobs.engine.docker.job_runtime import JobRuntime
from jobs.engine.docker.sandboxes import Sandboxes
from jobs.engine.docker.transport import EngineClient
from jobs.errors import EngineRefused, EngineSilent
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers import built_images
from tests.helpers.engines import DockerBench, shell
from tests.helpers.waiting import wait_for

SOURCE = Path(sandboxes.__file__).parent
ASSEMBLERS = {"amd64": "x86_64-linux-gnu-as", "arm64": "aarch64-linux-gnu-as"}
SYSTEM_CALLS = ["ppoll", "read", "write", "exit", "statx", "openat", "read", "close", "listxattr"]  # in the order of the source
NUMBERS = {
    "amd64": {271: "ppoll", 0: "read", 1: "write", 60: "exit", 332: "statx", 257: "openat", 3: "close", 194: "listxattr"},
    "arm64": {73: "ppoll", 63: "read", 64: "write", 93: "exit", 291: "statx", 56: "openat", 57: "close", 11: "listxattr"},
}

pytestmark = pytest.mark.stateless

# Everything that a job can find out about its network.
VIEW = """
hostname
cat /etc/hostname /etc/hosts /etc/resolv.conf
ls -ln /etc/hostname /etc/hosts /etc/resolv.conf | cut -c1-30
grep ' /etc/' /proc/mounts | cut -d' ' -f2,4
env | sort
ip address
ip route
nslookup -type=a $(hostname)
gateway=$(ip route | grep default | cut -d' ' -f3)
nc -w 2 $gateway 9 < /dev/null 2>&1
grep -i cap /proc/self/status
ls /proc/sys/net/ipv4 | wc -l
"""

# The server closes first, and the connection then waits for late packets, which keeps the port.
CLOSE_A_CONNECTION = """
echo hello | nc -l -p 8000 > /dev/null &
while ! grep -q ':1F40 ' /proc/net/tcp /proc/net/tcp6; do :; done
nc 127.0.0.1 8000 < /dev/null > /dev/null
"""
COUNT_WAITING = "cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 06 '; true"


@pytest.fixture
def network(docker_bench: DockerBench) -> str:
    name = f"test-{uuid.uuid4().hex}"
    docker_bench.engine.create_network(name, docker_bench.labels)
    return name


@pytest.fixture
def sandbox(docker_bench: DockerBench, network: str) -> str:
    name = f"sandbox-{uuid.uuid4().hex}"
    docker_bench.engine.create_sandbox(name, network, docker_bench.labels)
    return name


@pytest.fixture
def inspected(docker_bench: DockerBench, sandbox: str) -> Iterator[dict[str, Any]]:
    with closing(built_images.client(docker_bench.host)) as client:
        yield client.api.inspect_container(sandbox)


def view(bench: DockerBench, **values: Any) -> str:
    """Return what a container sees, with names in place of what differs from one container to the next."""
    seen = bench.output(shell(VIEW), **values)
    host, *_ = seen.splitlines()
    (address,) = set(re.findall(r"inet (\S+)/\d+ brd", seen))
    seen = seen.replace(host, "HOST").replace(address, "ADDRESS")
    return re.sub(r"\d+: eth0@if\d+|link/ether \S+", "LINK", seen)


# -- what a job sees ------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_job_sees_the_same_in_a_sandbox(docker_bench: DockerBench, network: str, sandbox: str) -> None:
    assert view(docker_bench, sandbox=sandbox) == view(docker_bench, network=network)


@pytest.mark.engine
def test_jobs_in_sandboxes_cannot_reach_one_another(docker_bench: DockerBench, network: str, sandbox: str) -> None:
    # Given a server in one sandbox
    server = docker_bench.started(shell("hostname -i; while :; do echo hello | nc -l -p 8000; done"), sandbox=sandbox)
    (address,) = wait_for(lambda: docker_bench.log(server))
    target = {"SERVER": address.data.decode().strip()}

    # When a job in another sandbox, or on the network itself, connects to it
    other = f"{sandbox}-2"
    docker_bench.engine.create_sandbox(other, network, docker_bench.labels)
    client = shell("nc -w 2 $SERVER 8000 < /dev/null")

    # I expect no answer
    assert docker_bench.output(client, environment=target, sandbox=other) == ""
    assert docker_bench.output(client, environment=target, network=network) == ""


# -- what a job leaves ----------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.parametrize(
    "change",
    [
        "echo 10.0.0.1 registry.example >> /etc/hosts",
        "sed 's/127/126/' /etc/resolv.conf > /tmp/new; touch -r /etc/resolv.conf /tmp/old; "
        "cat /tmp/new > /etc/resolv.conf; touch -r /tmp/old /etc/resolv.conf",
        "> /etc/hosts",
        "echo other > /etc/hostname",
        "chmod 600 /etc/resolv.conf",
        "chown 1000 /etc/hosts",
        "head -c 100000 /dev/zero >> /etc/hosts",
    ],
)
def test_a_sandbox_whose_files_a_job_changed_is_not_clean(docker_bench: DockerBench, sandbox: str, change: str) -> None:
    assert docker_bench.run(shell(change), sandbox=sandbox).exit_code == 0

    assert not docker_bench.engine.is_sandbox_clean(sandbox)


@pytest.mark.engine
def test_a_sandbox_that_does_not_run_is_not_clean(docker_bench: DockerBench, sandbox: str) -> None:
    docker_bench.engine.stop(sandbox, 0)

    with suppress(EngineSilent):  # the engine waits for its start
        assert not DockerEngine(docker_bench.host, EngineIntervals(sandbox_answer=0.5)).is_sandbox_clean(sandbox)


@pytest.mark.engine
@pytest.mark.parametrize("file", ["HostsPath", "ResolvConfPath", "HostnamePath"])
def test_attributes_that_a_job_gave_to_a_file_are_noticed(
    docker_bench: DockerBench, sandbox: str, inspected: dict[str, Any], file: str
) -> None:
    made = os.stat(inspected[file]).st_ctime  # in the steps of the kernel's clock
    wait_for(lambda: time.clock_gettime(time.CLOCK_REALTIME) > made + 0.05, what="a later time")
    try:
        os.setxattr(inspected[file], "user.test", b"1")
    except OSError as error:
        pytest.skip(f"this user, or the engine's file system, cannot do it: {error}")

    assert not docker_bench.engine.is_sandbox_clean(sandbox)


@pytest.mark.engine
def test_a_closed_connection_does_not_keep_its_port(docker_bench: DockerBench, network: str, sandbox: str) -> None:
    # Given a script after which a connection waits
    assert int(docker_bench.output(shell(CLOSE_A_CONNECTION + COUNT_WAITING), network=network)) > 0

    # When a job runs it in a sandbox
    docker_bench.run(shell(CLOSE_A_CONNECTION), sandbox=sandbox)

    # I expect the next job to find all ports free
    assert docker_bench.output(shell(COUNT_WAITING), sandbox=sandbox) == "0\n"


# -- the container --------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_sandbox_is_confined(inspected: dict[str, Any], network: str) -> None:
    host = inspected["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"], host["SecurityOpt"]) == (["ALL"], None, ["no-new-privileges"])
    assert (host["ReadonlyRootfs"], host["LogConfig"]["Type"], host["RestartPolicy"]["Name"]) == (True, "none", "no")
    assert (host["Binds"], host["Privileged"], host["NetworkMode"]) == (None, False, network)
    assert host["Memory"] <= 16 * 1024**2
    assert host["PidsLimit"] <= 16
    assert inspected["Config"]["User"] == "65534:65534"
    assert inspected["Config"]["StopSignal"] == "SIGKILL"  # else an engine that stops waits for it


def test_an_engine_of_another_architecture_has_no_sandboxes() -> None:
    sandboxes = Sandboxes(EngineClient("unix:///nowhere", EngineIntervals()), lambda: "riscv64", JobRuntime(""))

    with pytest.raises(EngineRefused, match="riscv64"):
        sandboxes.create("name", "network", {})


# -- the program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ASSEMBLERS)
def test_the_binary_is_built_from_the_source(tmp_path: Path, architecture: str) -> None:
    if not shutil.which(ASSEMBLERS[architecture]):
        pytest.skip(f"needs {ASSEMBLERS[architecture]}")

    subprocess.run([SOURCE / "build", tmp_path, architecture], check=True, timeout=60)

    made = f"waiter-{architecture}"
    assert (tmp_path / made).read_bytes() == (SOURCE / made).read_bytes()


@pytest.mark.parametrize("architecture", NUMBERS)
def test_the_program_makes_no_other_system_calls(architecture: str) -> None:
    assert list(system_calls(architecture)) == SYSTEM_CALLS


def system_calls(architecture: str) -> Iterator[str]:
    """Disassemble the instructions that make a system call, and those before them, which load its number."""
    binary = (SOURCE / f"waiter-{architecture}").read_bytes()
    names = NUMBERS[architecture]
    if architecture == "amd64":
        for found in re.finditer(rb"(?:\xb8(?P<number>....)|\x31\xc0)\x0f\x05", binary, re.DOTALL):  # mov or xor of eax; syscall
            yield names[int.from_bytes(found["number"] or b"", "little")]
        assert binary.count(b"\x0f\x05") == len(SYSTEM_CALLS)
    else:
        words = [int.from_bytes(binary[offset : offset + 4], "little") for offset in range(0, len(binary), 4)]
        for before, word in pairwise(words):
            if word == 0xD4000001:  # svc #0
                assert before & 0xFFE0001F == 0xD2800008  # mov x8, number
                yield names[before >> 5 & 0xFFFF]


def test_the_program_answers_until_its_input_ends() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("runs the program for x86-64")

    done = subprocess.run([SOURCE / "waiter-amd64"], input=b"ab", capture_output=True, timeout=20)

    assert (done.stdout, done.returncode) == (b"ab", 1)
