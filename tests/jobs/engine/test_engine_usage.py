"""The contract of engines: what the processes of a container have used."""

import os
from contextlib import closing, suppress

import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.docker.local_daemon import Listener, LocalDaemon
from jobs.engine.protocol import Observation, Usage
from jobs.errors import EngineUnavailable
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.engines import Bench, DockerBench, FakeBench
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

MIB = 1024**2
SPIN = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"  # takes more than 50 ms of CPU on any machine


@pytest.fixture
def measuring_docker(docker_bench: DockerBench) -> DockerBench:
    """A Docker engine whose containers' usage can be kept (see docs/operations.md)."""
    if LocalDaemon(docker_bench.host, EngineIntervals()).process() is None or os.geteuid() != 0:
        pytest.skip("this engine's control groups cannot be read by this process")
    return docker_bench


@pytest.fixture(params=["fake_bench", pytest.param("measuring_docker", marks=pytest.mark.engine)])
def measuring(request: pytest.FixtureRequest) -> Bench:
    """Each engine in turn."""
    found: Bench = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["fake_bench", pytest.param("docker_bench", marks=pytest.mark.engine)])
def following(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Each engine in turn, where it cannot keep the usage of containers: as if it were on another host."""
    found: Bench = request.getfixturevalue(request.param)
    monkeypatch.setattr(LocalDaemon, "listener", lambda _: Listener())
    if isinstance(found, FakeBench):
        found.engine.keeps_usage = False
        return found
    with suppress(EngineUnavailable):  # if it cannot set all resource limits, which cannot be seen from another host
        found.started()
    return found


def usage_of(seen: Observation) -> tuple[float, int]:
    """Return the CPU seconds and the peak memory of an ended container."""
    assert seen.usage is not None
    assert seen.usage.cpu_seconds is not None
    assert seen.usage.peak_memory_bytes is not None
    return seen.usage.cpu_seconds, seen.usage.peak_memory_bytes


def test_the_cpu_time_of_all_processes_is_known_after_the_end(measuring: Bench) -> None:
    # When a process ends that has children
    busy, _ = usage_of(measuring.run(("/bin/sh", "-c", f"({SPIN}) & ({SPIN}) & wait")))
    idle, _ = usage_of(measuring.run(("true",)))

    # I expect more than what an idle one uses
    assert busy > idle + 0.05


def test_the_peak_memory_is_known_after_the_end(measuring: Bench) -> None:
    # When a process ends that had 16 MiB for a while
    command = "x=$(head -c 16777216 /dev/zero | tr '\\0' x); sleep 0.3; : $x"
    _, peak = usage_of(measuring.run(("/bin/sh", "-c", command)))

    # I expect
    assert 16 * MIB < peak < 100 * MIB


@pytest.mark.engine
def test_a_peak_of_a_moment_is_seen(measuring_docker: DockerBench) -> None:
    # When a process ends at once that had 32 MiB
    _, peak = usage_of(measuring_docker.run(("dd", "if=/dev/zero", "of=/dev/null", "bs=32M", "count=1")))

    # I expect
    assert 32 * MIB < peak < 48 * MIB


@pytest.mark.engine
def test_it_is_known_to_a_worker_that_starts_later(measuring_docker: DockerBench) -> None:
    # Given an ended container
    name = measuring_docker.ended()
    used = measuring_docker.engine.inspect(name).usage
    assert used is not None

    # When another worker starts
    later = DockerEngine(measuring_docker.host)
    later.info()

    # I expect
    assert later.inspect(name).usage == used


def test_it_is_unknown_while_the_process_runs(measuring: Bench) -> None:
    name = measuring.started(("sleep", "60"))

    seen = measuring.engine.inspect(name)
    assert (seen.usage, seen.keeps_usage) == (None, True)


def test_it_is_known_under_another_name_until_it_is_forgotten(measuring: Bench) -> None:
    # Given an ended container that was renamed
    name = measuring.ended()
    used = usage_of(measuring.engine.inspect(name))
    measuring.engine.rename(name, f"{name}-adopted")

    # Then
    assert usage_of(measuring.engine.inspect(f"{name}-adopted")) == used

    # When it is removed, I expect its usage to be kept under its first name
    measuring.engine.remove(f"{name}-adopted")
    assert name in measuring.engine.kept_usage()

    # When it is forgotten
    measuring.engine.forget_usage(name)

    # I expect
    assert name not in measuring.engine.kept_usage()


def test_it_is_forgotten_with_the_container(measuring: Bench) -> None:
    # Given
    name = measuring.ended()
    assert name in measuring.engine.kept_usage()

    # When
    measuring.engine.remove(name)

    # I expect
    assert name not in measuring.engine.kept_usage()


def test_forgetting_what_is_not_kept_does_nothing(measuring: Bench) -> None:
    measuring.engine.forget_usage("unknown")


def test_the_usage_of_a_running_container_is_not_forgotten(measuring: Bench) -> None:
    # Given
    name = measuring.started(("sleep", "60"))

    # When
    measuring.engine.forget_usage(name)
    measuring.engine.stop(name, 0)

    # I expect
    assert isinstance(measuring.engine.inspect(name).usage, Usage)


def test_the_usage_of_a_running_container_is_followed_if_it_is_not_kept(following: Bench) -> None:
    # Given a process that has used CPU time, and has 16 MiB
    command = f"{SPIN}; x=$(head -c 16777216 /dev/zero | tr '\\0' x); sleep 60; : $x"
    name = following.started(("/bin/sh", "-c", command))
    assert not following.engine.inspect(name).keeps_usage

    # When it is followed until that has been seen, and then ends
    def seen() -> Usage | None:
        usage = followed.latest()
        return usage if usage and (usage.peak_memory_bytes or 0) > 16 * MIB else None

    with closing(following.engine.follow_usage(name)) as followed:
        try:
            wait_for(seen, 20, "a sample")
        except AssertionError as error:
            error.add_note(f"followed: {followed.latest()}; {following.statistics(name)}")
            raise
        following.engine.stop(name, 0)

    # I expect what was seen last to stay known, and the engine to know nothing
    used = followed.latest()
    assert used is not None
    assert used.cpu_seconds is not None
    assert used.cpu_seconds > 0.05
    assert following.engine.inspect(name).usage is None
    assert following.engine.kept_usage() == []


def test_following_what_does_not_exist_does_nothing(following: Bench) -> None:
    followed = following.engine.follow_usage("unknown")
    assert followed.latest() is None

    followed.close()
    followed.close()
