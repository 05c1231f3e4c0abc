"""What a job's process may and may not do in a pod: as on Docker (docs/adr/0002-container-privileges.md)."""

from typing import Any

import pytest

from tests.helpers.clusters import KubernetesBench
from tests.helpers.engines import shell

pytestmark = [pytest.mark.kubernetes, pytest.mark.stateless]

SEVEN_CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7))  # as numbered in capabilities(7)'s header
ANY_FILES = pytest.mark.parametrize("has_files", [False, True])


def output(bench: KubernetesBench, script: str, **values: Any) -> str:
    return bench.output(shell(script), **({"has_inputs": False, "has_outputs": False} | values))


@pytest.mark.parametrize(
    "script",
    [
        "touch file && chown 65534:65534 file && chmod 600 file && cat file",
        "su -s /bin/sh nobody -c 'test $(id -u) = 65534'",
        "su -s /bin/sh nobody -c 'exec sleep 60' & while ! kill -0 $!; do :; done; kill $!",
    ],
)
def test_root_can_do_what_ordinary_images_need(kubernetes_bench: KubernetesBench, script: str) -> None:
    assert kubernetes_bench.run(shell(script), has_inputs=False, has_outputs=False).exit_code == 0


def test_root_cannot_change_the_host(kubernetes_bench: KubernetesBench) -> None:
    attempts = ("mknod device c 1 3", "mount -t tmpfs none /tmp", "chroot / true", "hostname other")

    printed = output(
        kubernetes_bench, "; ".join(f"{attempt} 2> /dev/null && echo '{attempt}'" for attempt in attempts) + "; true"
    )

    assert printed == ""


@ANY_FILES
def test_a_process_has_seven_capabilities_and_gains_none(kubernetes_bench: KubernetesBench, has_files: bool) -> None:
    status = output(kubernetes_bench, "cat /proc/self/status", has_inputs=has_files, has_outputs=has_files)

    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == SEVEN_CAPABILITIES
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


@ANY_FILES
def test_a_process_has_no_secret_of_the_cluster(kubernetes_bench: KubernetesBench, has_files: bool) -> None:
    # Given a pod in a namespace with a service and an account
    script = "env; ls /var/run/secrets /run/secrets 2>/dev/null; cut -d' ' -f5 /proc/self/mountinfo"

    printed = output(kubernetes_bench, script, has_inputs=has_files, has_outputs=has_files)

    assert "secret" not in printed
    assert "token" not in printed
    assert [line for line in printed.splitlines() if "_SERVICE_" in line and not line.startswith("KUBERNETES_")] == []


def test_a_process_gets_no_more_than_its_limits(kubernetes_bench: KubernetesBench) -> None:
    script = (
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max; "
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    )

    assert output(kubernetes_bench, script, cpu_millis=250, memory_mib=64).split() == ["25000", str(64 * 1024**2)]


def test_processes_of_one_pod_do_not_see_those_of_another(kubernetes_bench: KubernetesBench) -> None:
    kubernetes_bench.started(("sleep", "61"), has_inputs=False, has_outputs=False)

    assert "sleep 61" not in output(kubernetes_bench, "ps", has_outputs=True)


def test_a_job_reserves_no_disk(kubernetes_bench: KubernetesBench) -> None:
    # Given a limit larger than any disk of the node: a reservation would never be granted
    name = kubernetes_bench.ended(("true",), disk_limit_bytes=2**60, has_inputs=False, has_outputs=False)

    (container,) = kubernetes_bench.namespace.pod_of(name)["spec"]["containers"]
    assert kubernetes_bench.engine.inspect(name).exit_code == 0
    assert container["resources"]["requests"]["ephemeral-storage"] == "0"
    assert int(container["resources"]["limits"]["ephemeral-storage"]) > 2**60


def test_the_deadline_of_a_pod_leaves_time_for_its_start(kubernetes_bench: KubernetesBench) -> None:
    bench = kubernetes_bench
    bench.engine.close()
    bench.engine = bench.another_engine(pull_timeout=100.0, transfer_timeout=1000.0)
    without = bench.created(timeout_seconds=10, stop_grace_seconds=5, has_inputs=False, has_outputs=False)
    with_inputs = bench.created(timeout_seconds=10, stop_grace_seconds=5)

    jobs = {job["metadata"]["name"]: job["spec"] for job in bench.namespace.jobs()}

    deadlines = [jobs[name]["template"]["spec"]["activeDeadlineSeconds"] for name in (without, with_inputs)]
    assert deadlines == [10 + 5 + 100 + 60, 10 + 5 + 100 + 1000 + 60]
    assert "activeDeadlineSeconds" not in jobs[without]


def test_the_last_resort_ends_a_process_and_keeps_its_log(kubernetes_bench: KubernetesBench) -> None:
    # Given a pod whose deadline comes while no worker stops it
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    name = bench.started(shell("echo here; exec sleep 100"), has_inputs=False, has_outputs=False)
    pod = namespace.path("pods", namespace.pod_of(name)["metadata"]["name"])
    namespace.admin("PATCH", pod, {"spec": {"activeDeadlineSeconds": 1}}, "application/merge-patch+json")

    bench.engine.stop(name, 10)

    assert (bench.engine.inspect(name).exit_code, bench.printed(name)) == (143, "here\n")
