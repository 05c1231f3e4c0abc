"""The engine is killed, stopped and frozen, and its containers and images are removed."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import pytest

from tests.faults.system import System, SystemOn, pass_time
from tests.helpers import built_images, registries
from tests.helpers.docker_daemons import OwnDaemon, own_daemon
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.timeout(300)]


WITH_A_VOLUME = "orchestrator-test/volume:latest"


@contextmanager
def engine_of_our_own(*, live_restore: bool = False) -> Iterator[OwnDaemon]:
    """Run an engine in a short path: that of a unix socket has at most 107 bytes."""
    with (
        tempfile.TemporaryDirectory(prefix="orc-", ignore_cleanup_errors=True) as directory,
        own_daemon(Path(directory), live_restore=live_restore) as daemon,
    ):
        yield daemon


@pytest.fixture
def engine() -> Iterator[OwnDaemon]:
    with engine_of_our_own() as daemon:
        yield daemon


@pytest.fixture
def lasting_engine() -> Iterator[OwnDaemon]:
    """An engine whose containers keep running while it is restarted."""
    with engine_of_our_own(live_restore=True) as daemon:
        yield daemon


def post_a_few(system: System) -> None:
    """Post some jobs, so that some are about to start."""
    for _ in range(4):
        system.load.long(1)
    pass_time(system.random.uniform(0, 1))


@pytest.mark.long
@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_an_engine_is_restarted_under_its_jobs(system_on: SystemOn, engine: OwnDaemon, end: str) -> None:
    with system_on(engine.host) as system:
        # Given a mixed load, and jobs that run for long
        system.start("worker-1", "worker-2")
        done = system.load.quick(3)
        system.service.wait_complete(done.id)
        running = [system.load.long(90), system.load.long(90), system.load.exits_on_sigterm()]
        system.load.mixed(10)
        system.load.wait_until_running(*running)
        post_a_few(system)

        # When the engine ends, and comes back a little later while more jobs are posted
        for task in system.load.tasks:
            task.may_be_lost = task is not done
        with system.load.engine_away():
            getattr(engine, end)()
            with system.load.posting_more():
                pass_time(4)
                engine.start_again()

        # I expect those that ran to be lost, whatever they did on SIGTERM, and all others to end as they must
        for task in running:
            task.expect_lost()
        system.check()


@pytest.mark.long
@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_an_engine_with_live_restore_is_restarted(system_on: SystemOn, lasting_engine: OwnDaemon, end: str) -> None:
    with system_on(lasting_engine.host) as system:
        # Given a mixed load
        system.start("worker-1", "worker-2")
        system.load.mixed(12)
        long = system.load.long(12)
        system.load.wait_until_running(long)
        post_a_few(system)

        # When the engine ends, and comes back a little later while more jobs are posted
        with system.load.posting_more(), system.load.engine_away():
            getattr(lasting_engine, end)()
            pass_time(4)
            lasting_engine.start_again()

        # I expect every job to end as it must: its process kept running
        system.check()
        assert not long.lost
        assert long.lines is not None


@pytest.mark.long
def test_a_host_loses_its_power(system_on: SystemOn, engine: OwnDaemon) -> None:
    with system_on(engine.host) as system:
        # Given jobs that run
        system.start()
        running = [system.load.long(90) for _ in range(3)]
        system.load.wait_until_running(*running)

        # When the engine, its containers' processes and the worker are killed, and engine and worker are started again
        system.service.kill("worker")
        engine.lose_host()
        with system.load.posting_more():
            pass_time(2)
        engine.start_again()
        system.service.restart("worker")

        # I expect those that ran to be lost, and all others to end as they must
        for task in running:
            task.expect_lost()
        system.check()


@pytest.mark.long
def test_an_engine_is_frozen(system_on: SystemOn, engine: OwnDaemon) -> None:
    with system_on(engine.host) as system:
        # Given a mixed load
        system.start("worker-1", "worker-2")
        system.load.mixed(15)
        long = system.load.long(20)
        system.load.wait_until_running(long)

        # When the engine neither answers nor refuses a request for 45 s
        engine.freeze()
        frozen = time.monotonic()
        with system.load.posting_more():
            pass_time(45)
        thawed = time.monotonic()
        engine.thaw()

        # I expect every job to end as it must, and no request to have been refused
        system.check()
        assert system.load.refusals == []

        # And /readyz to have reported it, once the last heartbeat was 30 s old
        assert [probe.says("engine") for probe in system.readiness.between(frozen, thawed)][-1] == "unhealthy"
        wait_for(lambda: system.readiness.probes[-1].status == 200, 30, "/readyz to be healthy")


def test_containers_are_removed_by_another_program(system: System) -> None:
    # Given jobs that run, and others
    system.start()
    running = [system.load.long(90) for _ in range(3)]
    system.load.mixed(5)
    system.load.wait_until_running(*running)

    # When another program removes their containers
    with closing(docker.DockerClient(base_url=system.engines[0], timeout=60)) as client:
        for task in running:
            label = f"orchestrator.job={system.uuid_of(task.id)}"
            for container in client.containers.list(filters={"label": label}):
                container.remove(force=True)

    # I expect these jobs to be lost, and all others to end as they must
    for task in running:
        task.expect_lost()
    system.check()


def test_an_image_is_deleted_by_another_program(system: System, tmp_path: Path) -> None:
    host = system.engines[0]
    with registries.serve(tmp_path / "registry") as address:
        # Given jobs of an image that a registry has, and some of them running
        image = f"{address}/deleted:latest"
        built_images.push(host, built_images.import_busybox(host, WITH_A_VOLUME, ["VOLUME /data"]), image)
        system.start("worker-1", "worker-2")
        running = [system.load.long(4, image=image) for _ in range(2)]
        system.load.wait_until_running(*running)

        # When the image is deleted several times, while more jobs are posted that need it
        for _ in range(6):
            for _ in range(3):
                system.load.quick(image=image)
            built_images.remove(host, image)
            pass_time(system.random.uniform(0, 0.5))

        # I expect it to be pulled again, and every job to end as it must
        system.check()
    built_images.remove(host, image)
    built_images.remove(host, WITH_A_VOLUME)


@pytest.mark.long
def test_one_of_two_engines_is_lost(system_on: SystemOn) -> None:
    with (
        engine_of_our_own() as first,
        engine_of_our_own() as second,
        system_on(first.host, second.host, NODE_LOST_AFTER="10s") as system,
    ):
        # Given two engines with a worker each, and jobs on both, because neither has capacity for all
        capacity = {"NODE_CPUS": "0.8", "CPU_OVERCOMMIT": "1"}
        for kind in ("web", "deliver", "relay", "metrics"):
            system.service.start(kind)
        system.service.start("worker", "worker-1", NODE_NAME="first", **capacity)
        system.service.start("worker", "worker-2", NODE_NAME="second", **capacity, DOCKER_HOST=second.host)
        system.service.wait_until_ready()
        wait_for(lambda: system.service.query("SELECT count(*) FROM jobs_node") == [(2,)], 30)
        long = [system.load.long(30) for _ in range(12)]
        system.load.wait_until_running(*long)
        home = {task.id: system.service.get_job(task.id)["node"] for task in long}
        assert set(home.values()) == {"first", "second"}

        # When one of them is down, with its worker, for longer than NODE_LOST_AFTER
        system.service.kill("worker-2")
        second.kill()
        with system.load.posting_more():
            pass_time(15)

        # I expect its jobs to be lost, and those of the other to continue there
        for task in long:
            if home[task.id] == "second":
                task.expect_lost()
        system.load.wait_until_done()

        # And its containers to be removed once it is back
        second.start_again()
        system.service.restart("worker-2")
        system.check()
        assert {task.id: system.service.get_job(task.id)["node"] for task in long} == home
