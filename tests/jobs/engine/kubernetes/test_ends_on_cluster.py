"""How the processes of a cluster end, and what the engine says about it: on a real cluster, with the role that is shipped."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from jobs.engine.protocol import Observation
from jobs.errors import ContainerConflict, ContainerNotFound, ImageUnavailable, StartFailed
from jobs.interrupt import Interrupt
from tests.helpers.clusters import KubernetesBench
from tests.helpers.engines import shell
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.stateless]

EATS_MEMORY = shell('x=aaaaaaaaaaaaaaaa; while true; do x="$x$x"; done')
MERGE_PATCH = "application/merge-patch+json"
NO_FILES = {"has_inputs": False, "has_outputs": False}


def set_status(bench: KubernetesBench, name: str, status: dict[str, Any]) -> None:
    """Report a status as the kubelet would: the kubelet of the test cluster cannot be made to."""
    namespace = bench.namespace
    path = namespace.path("pods", namespace.pod_of(name)["metadata"]["name"])
    namespace.admin("PATCH", f"{path}/status", {"status": status}, MERGE_PATCH)


def seen_when(bench: KubernetesBench, name: str, condition: Callable[[Observation], bool]) -> Observation:
    def look() -> Observation | None:
        seen = bench.engine.inspect(name)
        return seen if condition(seen) else None

    return wait_for(look, what="the state of the container")


# -- how it ended --------------------------------------------------------------------------------------


def test_an_exit_code_is_the_programs(kubernetes_bench: KubernetesBench) -> None:
    seen = kubernetes_bench.run(shell("exit 3"), **NO_FILES)

    assert (seen.exit_code, seen.oom_killed, seen.lost, seen.end_cause) == (3, False, False, "")


def test_too_much_memory_is_reported(kubernetes_bench: KubernetesBench) -> None:
    seen = kubernetes_bench.run(EATS_MEMORY, memory_mib=16, **NO_FILES)

    assert (seen.exit_code, seen.oom_killed, seen.lost) == (137, True, False)


@pytest.mark.parametrize(
    ("message", "over_disk_limit"),
    [
        ('Usage of EmptyDir volume "workspace" exceeds the limit "1Mi". ', True),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ", True),
        ('Container job exceeded its local ephemeral storage limit "10Mi". ', True),
        ("The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. ", False),
    ],
)
def test_an_eviction_is_the_jobs_fault_only_if_it_wrote_too_much(
    kubernetes_bench: KubernetesBench, message: str, over_disk_limit: bool
) -> None:
    name = kubernetes_bench.ended(shell("exit 137"), **NO_FILES)

    set_status(kubernetes_bench, name, {"phase": "Failed", "reason": "Evicted", "message": message})

    seen = seen_when(kubernetes_bench, name, lambda seen: bool(seen.end_cause))
    assert (seen.phase, seen.over_disk_limit, seen.lost) == ("ended", over_disk_limit, not over_disk_limit)
    assert message.strip().rstrip(".") in seen.end_cause


def test_a_pod_that_is_deleted_while_it_runs_is_lost(kubernetes_bench: KubernetesBench) -> None:
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    name = bench.started(("sleep", "60"), **NO_FILES)

    namespace.admin("DELETE", namespace.path("pods", namespace.pod_of(name)["metadata"]["name"]))

    bench.engine.wait(name, Interrupt(), timeout=30)
    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.lost, seen.end_cause) == ("ended", True, "its pod was deleted from the cluster while it ran")


def test_a_drained_node_is_named(kubernetes_bench: KubernetesBench) -> None:
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    name = bench.started(("sleep", "60"), **NO_FILES)
    pod = namespace.pod_of(name)["metadata"]["name"]

    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace.name}}
    namespace.admin("POST", f"{namespace.path('pods', pod)}/eviction", eviction)

    bench.engine.wait(name, Interrupt(), timeout=30)
    seen = bench.engine.inspect(name)
    assert (seen.lost, seen.end_cause) == (True, "it was evicted from its node, as when a node is drained")


def test_a_pod_that_is_deleted_after_its_end_keeps_its_exit_code(kubernetes_bench: KubernetesBench) -> None:
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    name = bench.ended(shell("exit 4"), **NO_FILES)
    pod = namespace.pod_of(name)["metadata"]["name"]

    namespace.admin("DELETE", namespace.path("pods", pod))

    wait_for(lambda: all(one["metadata"]["name"] != pod for one in namespace.pods()), what="its deletion")
    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.exit_code, seen.lost) == ("ended", 4, False)


def test_a_job_that_is_deleted_is_gone(kubernetes_bench: KubernetesBench) -> None:
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    name = bench.started(("sleep", "60"), **NO_FILES)

    namespace.admin("DELETE", namespace.path("jobs", name, "/apis/batch/v1"), {"propagationPolicy": "Background"})

    with suppress(ContainerNotFound):  # if it is gone before the wait begins
        bench.engine.wait(name, Interrupt(), timeout=30)
    for call in (bench.engine.inspect, lambda name: bench.engine.wait(name, Interrupt(), timeout=30)):
        with pytest.raises(ContainerNotFound):
            call(name)


def test_an_end_that_no_worker_has_seen_is_lost_unless_it_was_good(kubernetes_bench: KubernetesBench) -> None:
    # Given pods that ended and were removed while no worker looked
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    good, bad = bench.ended(("true",), **NO_FILES), bench.ended(("false",), **NO_FILES)

    def are_counted() -> bool:
        jobs = {job["metadata"]["name"]: job["status"] for job in namespace.jobs()}
        return bool(jobs[good].get("succeeded") and jobs[bad].get("failed"))

    wait_for(are_counted, what="the Jobs to be over")
    for name in (good, bad):
        namespace.admin("DELETE", namespace.path("pods", namespace.pod_of(name)["metadata"]["name"]))
    wait_for(lambda: not namespace.pods(), what="their deletion")

    # When another worker looks
    engine = bench.another_engine()
    seen, other = engine.inspect(good), engine.inspect(bad)
    engine.close()

    # I expect it to know only what the Jobs say
    assert (seen.phase, seen.exit_code, seen.lost) == ("ended", 0, False)
    assert (other.phase, other.exit_code, other.lost) == ("ended", None, True)


# -- why it does not start -----------------------------------------------------------------------------


def waiting_in_thread(bench: KubernetesBench, name: str) -> tuple[threading.Thread, list[Exception], list[str]]:
    failures: list[Exception] = []
    reasons: list[str] = []

    def wait() -> None:
        try:
            bench.engine.wait_until_started(name, reasons.append, Interrupt())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread, failures, reasons


def test_a_pod_that_is_removed_before_it_ran_may_be_run_again(kubernetes_bench: KubernetesBench) -> None:
    # Given a container that waits for a node
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    name = bench.created(cpu_millis=1_000_000, **NO_FILES)
    bench.engine.start(name)
    thread, failures, reasons = waiting_in_thread(bench, name)
    wait_for(lambda: reasons, what="the scheduler")
    assert "nodes are available" in reasons[-1]
    assert "Insufficient cpu" in reasons[-1]

    # When its pod is deleted
    namespace.admin("DELETE", namespace.path("pods", namespace.pod_of(name)["metadata"]["name"]))

    # I expect the wait to end, and another container of that name to run
    thread.join(30)
    assert [type(failure) for failure in failures] == [ContainerNotFound]
    assert bench.engine.inspect(name).phase == "created"
    bench.created(("true",), name=name, **NO_FILES)
    bench.start(name)
    bench.engine.wait(name, Interrupt(), timeout=30)
    assert bench.engine.inspect(name).exit_code == 0


def test_a_container_whose_start_has_failed_may_be_run_again(kubernetes_bench: KubernetesBench) -> None:
    # Given a container whose start has failed on its node
    bench = kubernetes_bench
    name = bench.created(None, image=bench.image_with(command=("/nosuch",)), **NO_FILES)
    with pytest.raises(StartFailed):
        bench.start(name)
    assert bench.engine.inspect(name).phase == "created"

    # When it is started again, I expect a refusal, and another container of that name to run
    with pytest.raises(ContainerConflict):
        bench.engine.start(name)
    bench.created(("true",), name=name, **NO_FILES)
    bench.start(name)
    bench.engine.wait(name, Interrupt(), timeout=30)
    assert bench.engine.inspect(name).exit_code == 0


@pytest.mark.parametrize("has_inputs", [True, False])
def test_an_image_that_may_not_be_pulled_is_reported_at_once(kubernetes_bench: KubernetesBench, has_inputs: bool) -> None:
    name = kubernetes_bench.created(image="nosuch.example/image:1", pull_policy="never", has_inputs=has_inputs, has_outputs=False)
    kubernetes_bench.engine.start(name)

    with pytest.raises(ImageUnavailable, match="is not on the engine, and the pull policy is never"):
        kubernetes_bench.engine.wait_until_started(name, lambda _: None, Interrupt())


def test_a_registry_that_is_not_reached_is_reported_after_the_time_out(kubernetes_bench: KubernetesBench) -> None:
    bench = kubernetes_bench
    bench.engine.close()
    bench.engine = bench.another_engine(pull_timeout=3.0)
    name = bench.created(image="127.0.0.1:9/image:1", **NO_FILES)
    bench.engine.start(name)

    with pytest.raises(ImageUnavailable, match="cannot be reached"):
        bench.engine.wait_until_started(name, lambda _: None, Interrupt())


def test_a_stop_takes_the_start_back(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.created(cpu_millis=1_000_000, **NO_FILES)
    kubernetes_bench.engine.start(name)

    kubernetes_bench.engine.stop(name, 0)

    assert kubernetes_bench.engine.inspect(name).phase == "created"
    wait_for(lambda: not kubernetes_bench.namespace.pods(), what="its pod to be gone")
    kubernetes_bench.engine.remove(name)
