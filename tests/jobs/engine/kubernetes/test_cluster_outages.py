"""Starts, requests and outages on a real cluster."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from jobs.engine.kubernetes import KubernetesEngine
from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.errors import ContainerConflict, ContainerNotFound, EngineUnavailable
from jobs.interrupt import Interrupt
from tests.helpers.cluster_processes import restart_controllers, without
from tests.helpers.clusters import KubernetesBench
from tests.helpers.engines import shell
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.stateless, pytest.mark.timeout(300)]

NO_FILES = {"has_inputs": False, "has_outputs": False}
OUTAGE_SECONDS = 20


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the requests of all engines, by their method and the kind of object."""
    counted: Counter[str] = Counter()
    send = ClusterClient._request

    def counting(self: ClusterClient, method: str, path: str, *arguments: object) -> object:
        kind = (
            "log"
            if path.endswith("/log")
            else next((k for k in ("jobs", "pods", "configmaps", "secrets") if f"/{k}" in path), path)
        )
        counted[f"{method} {kind}"] += 1
        return send(self, method, path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ClusterClient, "_request", counting)
    return counted


# -- starts --------------------------------------------------------------------------------------------


def test_two_workers_that_start_one_container_run_it_once(kubernetes_bench: KubernetesBench) -> None:
    # Given a container that two workers know
    name = kubernetes_bench.created(("sleep", "60"), **NO_FILES)
    other = kubernetes_bench.another_engine()
    other.inspect(name)

    def start(engine: KubernetesEngine) -> bool:
        try:
            engine.start(name)
        except ContainerConflict:
            return False
        return True

    # When both start it at once
    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(start, [kubernetes_bench.engine, other]))
    other.close()

    # I expect one to have done so, and one pod
    assert sorted(started) == [False, True]
    kubernetes_bench.engine.wait_until_started(name, lambda _: None, Interrupt())
    assert len(kubernetes_bench.namespace.pods()) == 1


@pytest.mark.parametrize("change", ["removed", "renamed"])
def test_a_late_start_of_an_old_owner_starts_nothing(kubernetes_bench: KubernetesBench, change: str) -> None:
    # Given a container that a new owner removes or renames while the old one is about to start it
    name = kubernetes_bench.created(("sleep", "60"), **NO_FILES)
    old = kubernetes_bench.another_engine()
    old.inspect(name)
    if change == "removed":
        kubernetes_bench.engine.remove(name)
    else:
        kubernetes_bench.engine.rename(name, f"{name}-2")

    # When the old owner does so, I expect it to find nothing, and no pod
    with pytest.raises(ContainerNotFound):
        old.start(name)
    old.close()
    assert not kubernetes_bench.namespace.pods()
    assert {seen.phase for seen in kubernetes_bench.engine.list(kubernetes_bench.labels)} <= {"created"}


def test_arguments_and_variables_are_not_expanded(kubernetes_bench: KubernetesBench) -> None:
    script = 'printf "%s|" "$@" "$VALUE" > /dev/termination-log'
    texts = ("$(HOME)", "$$(HOME)", "$$", "$", "\\$(HOME)")

    name = kubernetes_bench.ended(
        ("sh", "-c", script, "-", *texts), environment={"HOME": "/x", "VALUE": "$(HOME) $$"}, **NO_FILES
    )

    (status,) = kubernetes_bench.namespace.pod_of(name)["status"]["containerStatuses"]
    assert status["state"]["terminated"]["message"] == "".join(f"{text}|" for text in (*texts, "$(HOME) $$"))


# -- requests ------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_job_costs_a_bounded_number_of_requests(kubernetes_bench: KubernetesBench, requests: Counter[str]) -> None:
    # Given a worker that has run a job, and watches
    bench = kubernetes_bench
    bench.engine.remove(bench.ended(("true",), **NO_FILES))
    requests.clear()

    # When it runs ten more, each to its end, with all the questions that a run asks
    for _ in range(10):
        name = bench.ended(("true",), **NO_FILES)
        bench.engine.inspect(name)
        bench.engine.remove(name)

    # I expect for each: create, start, remove, and at most another look if the cluster changed the Job meanwhile
    assert requests["POST jobs"] == 10
    assert requests["PATCH jobs"] == 10
    assert 10 <= requests["DELETE jobs"] <= 30
    assert requests["GET jobs"] == requests["DELETE jobs"] - 10
    assert set(requests) <= {"POST jobs", "PATCH jobs", "DELETE jobs", "GET jobs"}


@pytest.mark.alone
def test_500_jobs_that_wait_cost_no_requests(kubernetes_bench: KubernetesBench, requests: Counter[str]) -> None:
    # Given 500 jobs that no node can hold, each with a thread that waits for it
    bench, namespace = kubernetes_bench, kubernetes_bench.namespace
    restart_controllers(namespace.admin)
    first = bench.created(cpu_millis=1_000_000, **NO_FILES)
    with ThreadPoolExecutor(8) as pool:
        names = [first, *pool.map(lambda _: bench.created(cpu_millis=1_000_000, **NO_FILES), range(499))]
        list(pool.map(bench.engine.start, names))
    interrupt = Interrupt()
    reasons: dict[str, str] = {}

    def wait(name: str) -> None:
        with suppress(Exception):
            bench.engine.wait_until_started(name, lambda reason: reasons.__setitem__(name, reason), interrupt)

    threads = [threading.Thread(target=wait, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    wait_for(
        lambda: sum("Insufficient cpu" in reason for reason in list(reasons.values())) == 500, timeout=90, what="the scheduler"
    )

    # I expect two requests for each so far, and none while they wait
    assert requests["POST jobs"] == requests["PATCH jobs"] == 500
    assert sum(requests.values()) <= 2 * 500 + 10
    before = sum(requests.values())
    assert_for(3, lambda: sum(requests.values()) == before)
    interrupt.wake()
    for thread in threads:
        thread.join(10)

    # And the cluster to be free again for the tests that follow
    namespace.admin("DELETE", namespace.path("jobs", group="/apis/batch/v1"), {"propagationPolicy": "Background"})
    wait_for(lambda: not namespace.jobs() and not namespace.pods(), timeout=60, what="the cluster to be empty", step=0.5)


def assert_for(seconds: float, condition: Callable[[], bool]) -> None:
    """Check that a condition is true all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition()
        time.sleep(0.2)


# -- outages -------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_an_api_server_that_is_away_for_a_while_changes_nothing(kubernetes_bench: KubernetesBench) -> None:
    # Given a running container, and one who waits for it
    bench = kubernetes_bench
    name = bench.started(shell(f"sleep {OUTAGE_SECONDS + 5}; exit 5"), **NO_FILES)

    # When the API server is killed and comes back
    def is_cut_off() -> bool:
        try:
            bench.engine.inspect(name)
        except EngineUnavailable:
            return True
        return False

    with without("apiserver", bench.namespace.admin):
        wait_for(is_cut_off, what="the outage to be noticed")
        assert_for(OUTAGE_SECONDS, is_cut_off)

    # I expect the engine to go on
    wait_for(lambda: not is_cut_off(), timeout=30, what="the engine to go on")
    bench.engine.wait(name, Interrupt(), timeout=60)
    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.exit_code, seen.lost) == ("ended", 5, False)


@pytest.mark.alone
def test_a_kubelet_that_is_killed_changes_nothing(kubernetes_bench: KubernetesBench) -> None:
    bench = kubernetes_bench
    name = bench.started(shell("sleep 3; exit 6"), **NO_FILES)

    with without("kubelet", bench.namespace.admin):
        assert_for(5, lambda: bench.engine.inspect(name).phase == "running")  # as far as anything can be known

    bench.engine.wait(name, Interrupt(), timeout=150)
    seen = bench.engine.inspect(name)
    assert (seen.phase, seen.exit_code, seen.lost) == ("ended", 6, False)
