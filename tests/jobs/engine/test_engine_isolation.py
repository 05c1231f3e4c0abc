"""What a job's process may and may not do (docs/adr/0002-container-privileges.md)."""

import re
import socket
import uuid
from contextlib import closing
from ipaddress import ip_network

import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.docker.firewall.iptables import Iptables
from jobs.engine.docker.firewall.nftables import Nftables
from tests.helpers import built_images
from tests.helpers.engines import DockerBench, shell
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.stateless]

OWNER = f"orc{uuid.uuid4().hex[:8]}"

SEVEN_CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7))  # as numbered in capabilities(7)'s header


@pytest.mark.parametrize(
    "script",
    [
        "touch file && chown 65534:65534 file && chmod 600 file && cat file",
        "su -s /bin/sh nobody -c 'test $(id -u) = 65534'",
        "su -s /bin/sh nobody -c 'exec sleep 60' & while ! kill -0 $!; do :; done; kill $!",
    ],
)
def test_root_can_do_what_ordinary_images_need(docker_bench: DockerBench, script: str) -> None:
    assert docker_bench.run(shell(script)).exit_code == 0


@pytest.mark.parametrize("script", ["mknod device c 1 3", "mount -t tmpfs none /tmp", "chroot / true", "hostname other"])
def test_root_cannot_change_the_host(docker_bench: DockerBench, script: str) -> None:
    assert docker_bench.run(shell(script)).exit_code != 0


def test_a_process_has_seven_capabilities_and_gains_none(docker_bench: DockerBench) -> None:
    status = docker_bench.output(("cat", "/proc/self/status"))

    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == SEVEN_CAPABILITIES
    assert fields["NoNewPrivs"] == "1"


def test_a_process_sees_its_limits(docker_bench: DockerBench) -> None:
    one_cgroup = "cat /sys/fs/cgroup/{0}/{1} 2>/dev/null || cat /sys/fs/cgroup/{2}"
    printed = docker_bench.output(
        shell(
            "ulimit -n; ulimit -c; ulimit -i; cat /proc/self/oom_score_adj; "
            f"{one_cgroup.format('pids', 'pids.max', 'pids.max')}; "
            f"{one_cgroup.format('memory', 'memory.limit_in_bytes', 'memory.max')}; "
            "cat /sys/fs/cgroup/memory.swap.max 2>/dev/null || echo 0"
        ),
        memory_mib=64,
    )

    files, *others = printed.split()
    assert int(files) <= 65_536  # less if the engine itself may open fewer
    assert others == ["0", "4096", "500", "1024", str(64 * 1024**2), "0"]


def test_a_container_mounts_nothing_of_the_host_but_the_files_of_the_engine(docker_bench: DockerBench) -> None:
    image = docker_bench.image_of(built_images.busybox_file_system(), Volumes={"/volume": {}}, Env=["PATH=/bin"])
    printed = docker_bench.output(shell("cut -d' ' -f4,5 /proc/self/mountinfo"), image=image)

    # What does not begin at the root of a file system is a part of one that the host has, too.
    parts = {point for root, point in map(str.split, printed.splitlines()) if root != "/"}
    assert {point for point in parts if not point.startswith(("/proc", "/sys"))} == {
        "/dev/orchestrator",  # the init, read-only
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/volume",
    }


def test_an_images_health_check_never_runs(docker_bench: DockerBench) -> None:
    # Given an image whose health check leaves a file as soon as it can
    checks = {"Test": ["CMD-SHELL", "touch /checked"], "Interval": 1_000_000, "StartPeriod": 0}
    image = docker_bench.image_of(built_images.busybox_file_system(), Healthcheck=checks, Env=["PATH=/bin"])

    # I expect none after a thousand intervals
    assert docker_bench.output(shell("sleep 1; ls /checked 2>/dev/null; echo end"), image=image) == "end\n"


def test_an_images_volumes_are_removed_with_the_container(docker_bench: DockerBench) -> None:
    # Given a job that wrote to a volume of its image, and one that is killed while it does
    image = docker_bench.image_of(built_images.busybox_file_system(), Volumes={"/volume": {}}, Env=["PATH=/bin"])
    ended = docker_bench.ended(shell("echo x > /volume/file"), image=image)
    running = docker_bench.started(shell("echo x > /volume/file; exec sleep 60"), image=image)
    with closing(built_images.client(docker_bench.host)) as client:
        volumes = {
            mount["Name"]
            for name in (ended, running)
            for mount in client.containers.get(name).attrs["Mounts"]
            if mount["Destination"] == "/volume"
        }
        assert len(volumes) == 2

        # When
        docker_bench.engine.remove(ended)
        docker_bench.engine.remove(running, force=True)

        # I expect nothing of it to be left
        assert not volumes.intersection(volume.name for volume in client.volumes.list())


def test_a_process_of_another_user_has_no_capabilities(docker_bench: DockerBench) -> None:
    image = docker_bench.image_with(user="nobody")

    assert docker_bench.output(shell("id -u; grep CapEff /proc/self/status"), image=image).split() == [
        "65534",
        "CapEff:",
        "0" * 16,
    ]


def test_a_container_without_a_network_has_only_loopback(docker_bench: DockerBench) -> None:
    devices = docker_bench.output(shell("ls /sys/class/net"), network=None)

    assert devices.split() == ["lo"]


def answer_of_a_neighbour(bench: DockerBench, network: str) -> str:
    """Return what a container receives from the server of another one on the same network."""
    server = bench.started(shell("hostname -i; while :; do echo hello | nc -l -p 8000; done"), network=network)
    (address,) = wait_for(lambda: bench.log(server))
    target = {"SERVER": address.data.decode().strip()}
    return bench.output(shell("nc -w 2 $SERVER 8000 < /dev/null"), environment=target, network=network)


def test_containers_of_one_network_cannot_reach_one_another(docker_bench: DockerBench) -> None:
    network = f"test-{uuid.uuid4().hex}"
    docker_bench.engine.create_network(network, docker_bench.labels)

    assert answer_of_a_neighbour(docker_bench, "bridge") == "hello\n"  # Docker's default network does not isolate them
    assert answer_of_a_neighbour(docker_bench, network) == ""


def test_a_container_can_neither_forge_packets_nor_change_its_network(docker_bench: DockerBench) -> None:
    # Given what would lead the packets of others to a container, or let it send under another address
    attempts = (
        "arping -c 1 -I eth0 192.0.2.1",
        "traceroute -I 192.0.2.1",
        "arp -i eth0 -s 192.0.2.1 02:00:00:00:00:01",
        "ip address add 192.0.2.2/24 dev eth0",
        "ip route add 192.0.2.0/24 dev eth0",
        "ip link set eth0 address 02:00:00:00:00:02",
        "ip link add forged type dummy",
    )
    network = f"test-{uuid.uuid4().hex}"
    docker_bench.engine.create_network(network, docker_bench.labels)

    # When root in a container tries it
    printed = docker_bench.output(shell("; ".join(f"{attempt} 2>&1 | tail -n 1" for attempt in attempts)), network=network)

    # I expect a refusal each time
    answers = printed.splitlines()
    assert len(answers) == len(attempts)
    assert [answer for answer in answers if not re.search("not permitted|denied", answer)] == []


def rules_of(owner: str) -> list[str]:
    """Return the names of an installation's firewall rules."""
    programs = [program for program in (Nftables(10), Iptables(10)) if program.is_installed]
    return [name for program in programs for name in program.names() if name.startswith(f"{owner}-")]


def test_a_protected_network_is_apart_from_its_node(docker_bench: DockerBench) -> None:
    # Given a server of this machine on all its addresses, and a container that reaches it through its gateway
    engine = docker_bench.engine = DockerEngine(docker_bench.host, denied=[ip_network("169.254.0.0/16")])
    network = f"test-{uuid.uuid4().hex}"
    network_id = engine.create_network(network, docker_bench.labels)
    with closing(socket.create_server(("0.0.0.0", 0))) as server:
        connect = f"nc -w 5 $(ip route | sed -n 's/^default via \\([^ ]*\\) .*/\\1/p') {server.getsockname()[1]} < /dev/null 2>&1"
        resolve = "nslookup $(hostname) 127.0.0.11 > /dev/null && echo resolved"
        docker_bench.started(shell(connect), network=network)
        server.settimeout(30)
        server.accept()[0].close()

        # When its network is protected
        engine.protect_network(network_id, OWNER)

        # I expect the firewall to refuse the connection at once, but the container to find others by their names
        assert engine.info().warnings == DockerEngine(docker_bench.host).info().warnings
        printed = docker_bench.output(shell(f"{connect}; {resolve}"), network=network)
        assert re.fullmatch(r"nc: can't connect to remote host \(.*\): Connection refused\nresolved\n", printed)

    # And no rule to remain without the network
    docker_bench.clean()
    assert rules_of(OWNER)
    engine.remove_unused_rules(OWNER, [])
    assert not rules_of(OWNER)


def test_dns_reveals_only_the_names_of_containers(docker_bench: DockerBench) -> None:
    network = f"test-{uuid.uuid4().hex}"
    docker_bench.engine.create_network(network, docker_bench.labels)
    neighbour = docker_bench.started(shell("hostname -i; sleep 60"), network=network)
    (address,) = wait_for(lambda: docker_bench.log(neighbour))

    printed = docker_bench.output(("nslookup", address.data.decode().strip()), network=network)

    assert re.findall(r"name = (\S+)", printed) == [f"{neighbour}.{network}"]


def test_a_process_gets_no_more_cpu_than_its_limit(docker_bench: DockerBench) -> None:
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max"

    assert docker_bench.output(shell(quota), cpu_millis=250) == "25000\n"
