"""Logs of a real cluster: large ones, and those whose worker, kubelet, container runtime or API server dies."""

import subprocess
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.kubernetes.logs.log_requests import LogRequests
from jobs.engine.protocol import START_OF_LOG, Engine, Frame, Frames, LogPosition
from jobs.errors import ContainerNotFound, EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.cluster_processes import ClusterProcess
from tests.helpers.clusters import KubernetesBench
from tests.helpers.engines import shell
from tests.helpers.waiting import wait_for
from tests.jobs.logs.log_steps import log_follower, started, stored_lines

pytestmark = pytest.mark.kubernetes

NO_FILES = {"has_inputs": False, "has_outputs": False}

# It prints for some seconds, and stays a moment: what a busy node has not read 2 s after the end of a process is lost.
COUNTS = shell("for i in $(seq 0 39); do seq $((i*100+1)) $((i*100+100)); usleep 200000; done; sleep 1")


class Reader:
    """A reader that goes on where it stopped, as the owner of a job does, whatever breaks off."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.frames: list[Frame] = []
        self.gaps = 0
        self.broken = 0
        self._engine = engine
        self._name = name
        self._position: LogPosition = START_OF_LOG

    def read(self, *, follow: bool, until: Callable[[], bool] = lambda: False) -> None:
        with self._engine.logs(self._name, skip=0, follow=follow, interrupt=Interrupt(), after=self._position) as log:
            for some in log:
                self._take(some)
                if until():
                    return

    def read_to_end(self) -> None:
        """Read until the process has ended, and then the rest."""
        while self._phase() != "ended":
            with suppress(EngineUnavailable):
                self.read(follow=True)
                self._engine.wait(self._name, Interrupt(), timeout=0.5)
                continue
            self.broken += 1
        wait_for(self._read_rest, timeout=60, what="the rest of the log")

    def _phase(self) -> str:
        def ask() -> str:
            with suppress(EngineUnavailable):
                return self._engine.inspect(self._name).phase
            return ""

        return wait_for(ask, timeout=60, what="an answer of the cluster")

    def _read_rest(self) -> bool:
        with suppress(EngineUnavailable):
            self.read(follow=False)
            return True
        return False

    def _take(self, frames: Frames | None) -> None:
        if frames is not None:
            self.gaps += frames.after_gap
            self.frames += frames
            self._position = self._position.moved(frames.times) if len(frames) else self._position

    @property
    def numbers(self) -> list[int]:
        return [int(frame.data) for frame in self.frames]


def numbers_to(count: int) -> list[int]:
    return list(range(1, count + 1))


@pytest.fixture
def cluster_process(kubernetes_bench: KubernetesBench, request: pytest.FixtureRequest) -> ClusterProcess:
    return ClusterProcess(kubernetes_bench.namespace.admin.directory, request.param)


def test_a_long_log_is_exact_and_takes_little_memory(kubernetes_bench: KubernetesBench) -> None:
    # Given a process that prints more than a line may have, at once
    name = kubernetes_bench.ended(shell("head -c 3000000 /dev/zero | tr '\\0' x; printf 'y\\n'; seq 50000; sleep 2"))
    engine = kubernetes_bench.engine
    sizes, count = 0, 0
    tracemalloc.start()
    try:
        with engine.logs(name, skip=0, follow=False, interrupt=Interrupt()) as log:
            for frames in log:
                assert frames is not None
                sizes += sum(map(len, frames.data))
                count += sum(data.endswith(b"\n") for data in frames.data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (sizes, count) == (3_000_002 + sum(len(f"{number}\n") for number in numbers_to(50_000)), 50_001)
    assert peak < 4 * 1024**2


def test_readers_that_die_lose_and_repeat_nothing(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.started(COUNTS)
    reader = Reader(kubernetes_bench.engine, name)

    # When each reader gets some more lines, and the next one has only the position of the last
    for wanted in range(500, 3000, 500):
        reader.read(follow=True, until=lambda wanted=wanted: len(reader.frames) >= wanted)  # type: ignore[misc]
    reader.read_to_end()

    assert reader.numbers == numbers_to(4000)
    assert reader.gaps == 0


@pytest.mark.alone
@pytest.mark.parametrize("cluster_process", ["kubelet", "apiserver"], indirect=True)
def test_a_log_is_read_on_after_a_restart_of(kubernetes_bench: KubernetesBench, cluster_process: ClusterProcess) -> None:
    # Given a log that is being followed
    name = kubernetes_bench.started(COUNTS)
    reader = Reader(kubernetes_bench.engine, name)
    killed = False

    def kill_once() -> bool:
        nonlocal killed
        if not killed and len(reader.frames) >= 1000:
            killed = True
            cluster_process.kill()
            cluster_process.start()
        return False

    # When the kubelet or the API server is killed and started again
    with suppress(EngineUnavailable):
        reader.read(follow=True, until=kill_once)
    reader.read_to_end()

    # I expect each line once
    assert killed
    assert reader.numbers == numbers_to(4000)
    assert reader.gaps == 0


def test_a_log_that_was_not_read_before_the_end_is_there(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.ended(COUNTS)
    reader = Reader(kubernetes_bench.engine, name)

    reader.read_to_end()

    assert reader.numbers == numbers_to(4000)


def test_a_log_of_a_removed_container_is_not_found(kubernetes_bench: KubernetesBench) -> None:
    name = kubernetes_bench.ended(shell("echo one; sleep 1"))
    kubernetes_bench.engine.remove(name)

    with pytest.raises(ContainerNotFound):
        kubernetes_bench.log(name)


def test_a_log_goes_with_a_pod_that_was_deleted(kubernetes_bench: KubernetesBench) -> None:
    # Given a job whose pod was deleted by another program
    name = kubernetes_bench.ended(shell("echo one; sleep 1"))
    namespace = kubernetes_bench.namespace
    pod = next(pod for pod in namespace.pods() if name in pod["metadata"]["name"])["metadata"]["name"]
    namespace.admin("DELETE", f"{namespace.path('pods', pod)}?gracePeriodSeconds=0")
    wait_for(lambda: namespace.admin("GET", namespace.path("pods", pod)) is None, what="the end of the pod")

    # When its log is read, I expect to be told that it cannot be
    with pytest.raises((EngineRefused, ContainerNotFound)):
        kubernetes_bench.log(name)


@pytest.mark.alone
@pytest.mark.parametrize("cluster_process", ["containerd"], indirect=True)
def test_the_log_of_an_ended_process_is_read_after_a_restart_of_the_container_runtime(
    kubernetes_bench: KubernetesBench, cluster_process: ClusterProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = kubernetes_bench.ended(shell("echo one; sleep 1"), **NO_FILES)
    reader = Reader(kubernetes_bench.engine, name)
    asked = Counter[str]()
    pause = LogRequests.pause

    def counted_pause(requests: LogRequests) -> None:
        asked[name] += 1
        pause(requests)

    monkeypatch.setattr(LogRequests, "pause", counted_pause)

    # When it is read while the container runtime is away
    cluster_process.kill()
    thread = threading.Thread(target=reader.read_to_end, daemon=True)
    try:
        thread.start()
        wait_for(lambda: asked[name] > 2, what="the reader to ask again")
    finally:
        cluster_process.start()

    # I expect the reader to go on by itself
    thread.join(60)
    assert [frame.data for frame in reader.frames] == [b"one\n"]
    assert reader.broken == 0


@pytest.mark.alone
@pytest.mark.parametrize("cluster_process", ["containerd"], indirect=True)
def test_a_log_whose_node_has_lost_the_container_is_lost(
    kubernetes_bench: KubernetesBench, cluster_process: ClusterProcess
) -> None:
    # Given an ended process of which the container runtime knows nothing any more
    bench = kubernetes_bench
    name = bench.ended(shell("echo one; sleep 1"), **NO_FILES)
    (status,) = bench.namespace.pod_of(name)["status"]["containerStatuses"]
    remove_record(bench.namespace.admin.directory, status["containerID"].removeprefix("containerd://"))
    cluster_process.kill()
    cluster_process.start()
    bench.ended(("true",), **NO_FILES)  # it is back

    # When its log is read
    engine = bench.another_engine(EngineIntervals(cluster_log=1.0))
    try:
        with engine.logs(name, skip=0, follow=False, interrupt=Interrupt()) as log, pytest.raises(EngineRefused) as refusal:
            list(log)
    finally:
        engine.close()

    # I expect to be told that it cannot be, and why
    assert "unable to retrieve container logs" in str(refusal.value)


def remove_record(cluster: Path, container: str) -> None:
    """Remove what containerd has recorded about an ended container. It knows it nevertheless, until it is started again."""
    ctr = ["ctr", "--address", str(cluster / "containerd" / "sock"), "--namespace", "k8s.io"]
    subprocess.run([*ctr, "containers", "rm", container], check=True)


@pytest.mark.django_db(transaction=True)
def test_a_job_has_each_line_once_if_its_workers_die(kubernetes_bench: KubernetesBench) -> None:
    # Given a job whose log is followed by workers that die without a word
    claim: Claim = started()
    name = kubernetes_bench.started(COUNTS)
    engine: Any = kubernetes_bench.engine
    for stored in (800, 1900, 3000):
        follower = log_follower(engine, claim, name=name, engine_log_limit=None)
        with follower._frames(following=True) as log:
            for frames in log:
                follower._write(frames)
                if len(stored_lines()) >= stored:
                    break

    # When the last one reads to the end
    log_follower(engine, claim, name=name, engine_log_limit=None).follow()
    engine.wait(name, Interrupt(), timeout=60)
    log_follower(engine, claim, name=name, engine_log_limit=None).read_rest()

    # I expect each line once
    assert stored_lines() == [str(number) for number in numbers_to(4000)]


def test_a_rotated_log_is_read_on_and_the_gap_is_marked(kubernetes_bench: KubernetesBench) -> None:
    # Given a process that prints more than the kubelet keeps in a file, and more after the kubelet has looked
    name = kubernetes_bench.started(shell("seq 270000; sleep 25; seq 270001 300000; sleep 5"))
    reader, late = Reader(kubernetes_bench.engine, name), Reader(kubernetes_bench.engine, name)
    late.read(follow=True, until=lambda: len(late.frames) > 0)

    # When one reader follows it, and another one comes back only after the end
    reader.read_to_end()
    late.read_to_end()

    # I expect both to have the lines in order, to the last one, and to be told that some may be missing
    for one in (reader, late):
        assert one.numbers == sorted(set(one.numbers))
        assert one.numbers[-1] == 300_000
        assert one.gaps == 1
    assert len(late.numbers) < 300_000
