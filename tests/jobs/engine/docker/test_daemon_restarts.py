"""Processes whose engine or host is stopped, killed, or loses power, and is started again."""

import os
import shutil
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from processes import processes_with_argument

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Observation, Phase
from jobs.errors import EngineUnavailable
from jobs.interrupt import Interrupt
from tests.helpers import built_images
from tests.helpers.docker_daemons import OwnDaemon, own_daemon
from tests.helpers.engines import Bench, DockerBench, FakeBench, shell
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless

SLEEPS = shell("sleep 600")
CATCHES_SIGTERM = shell('trap "exit 0" TERM; echo ready; while true; do sleep 0.1; done')
FAILS_ON_SIGTERM = shell('trap "exit 4" TERM; echo ready; while true; do sleep 0.1; done')
IGNORES_SIGTERM = shell('trap "" TERM; echo ready; while true; do sleep 0.1; done')
GRACE = 3  # seconds that a stopping daemon waits for processes that ignore SIGTERM

WAYS_DOWN = {"stop": OwnDaemon.terminate, "crash": OwnDaemon.kill, "power cut": OwnDaemon.lose_host}


@pytest.fixture(scope="module")
def startable() -> None:
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("only root can start a dockerd")


@pytest.fixture(scope="module")
def plain_daemon(startable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDaemon]:
    with own_daemon(tmp_path_factory.mktemp("e"), firewall=False) as daemon:
        yield daemon


@pytest.fixture
def daemon_with_firewall(startable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDaemon]:
    with own_daemon(tmp_path_factory.mktemp("e")) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def live_restoring_daemon(startable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDaemon]:
    with own_daemon(tmp_path_factory.mktemp("e"), live_restore=True, firewall=False) as daemon:
        yield daemon


@dataclass(frozen=True)
class Restartable:
    """A bench, and a function that restarts its engine."""

    bench: Bench
    restart: Callable[[], None]


def bring_down_and_up(daemon: OwnDaemon, way: str) -> None:
    WAYS_DOWN[way](daemon)
    daemon.start_again()


@pytest.fixture(params=["fake", *(pytest.param(way, marks=pytest.mark.engine) for way in WAYS_DOWN)])
def restartable(request: pytest.FixtureRequest) -> Iterator[Restartable]:
    """Each engine whose processes end with it, and for Docker each kind of restart."""
    if request.param == "fake":
        fake: FakeBench = request.getfixturevalue("fake_bench")
        yield Restartable(fake, fake.engine.restart)
        return
    daemon: OwnDaemon = request.getfixturevalue("plain_daemon")
    yield Restartable(request.getfixturevalue("plain"), partial(bring_down_and_up, daemon, request.param))


@pytest.fixture
def plain(plain_daemon: OwnDaemon) -> Iterator[DockerBench]:
    bench = DockerBench(plain_daemon.host, registry_address="")
    yield bench
    bench.clean()


@pytest.fixture
def with_firewall(daemon_with_firewall: OwnDaemon) -> Iterator[DockerBench]:
    bench = DockerBench(daemon_with_firewall.host, registry_address="")
    yield bench
    bench.clean()


@pytest.fixture
def live_restoring(live_restoring_daemon: OwnDaemon) -> Iterator[DockerBench]:
    bench = DockerBench(live_restoring_daemon.host, registry_address="")
    yield bench
    bench.clean()


def ready(bench: Bench, command: tuple[str, ...], **values: object) -> str:
    """Start a container, wait for its first line, and return its name."""
    name = bench.started(command, stop_grace_seconds=GRACE, **values)
    wait_for(lambda: bench.log(name), 20, "its first line")
    return name


def process_of(bench: DockerBench, name: str) -> int:
    """Return the process id, on this machine, of the container's first process."""
    with closing(built_images.client(bench.host)) as client:
        return int(client.containers.get(name).attrs["State"]["Pid"])


def phase_of(bench: Bench, name: str) -> Phase:
    """Return the phase in the engine's list of containers."""
    return next(seen.phase for seen in bench.engine.list(bench.labels) if seen.name == name)


@contextmanager
def greeting() -> Iterator[int]:
    """Greet all that connect to this machine; yield the port."""

    def greet() -> None:
        with suppress(OSError):
            while True:
                with server.accept()[0] as connection:
                    connection.sendall(b"hello\n")

    with socket.create_server(("", 0)) as server:
        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)  # ends `accept`
            thread.join()


def outcome(seen: Observation) -> tuple[str, int | None, bool]:
    return seen.phase, seen.exit_code, seen.lost


# -- engines whose processes end with them -----------------------------------------------------------------


def test_processes_ended_by_a_restart_are_lost(restartable: Restartable) -> None:
    # Given a process that SIGTERM ends, one that exits with 0 on SIGTERM, and one that ended earlier
    bench = restartable.bench
    names = [bench.started(SLEEPS, stop_grace_seconds=GRACE), ready(bench, CATCHES_SIGTERM), bench.ended(shell("exit 3"))]
    assert not any(bench.engine.inspect(name).lost for name in names)

    # When
    restartable.restart()

    # I expect all to be lost, since the last looks like the others
    seen = [bench.engine.inspect(name) for name in names]
    assert [(one.phase, one.lost) for one in seen] == [("ended", True)] * 3
    assert all(one.started_at and one.finished_at and one.started_at <= one.finished_at for one in seen)


def test_log_and_files_of_a_lost_process_are_kept(restartable: Restartable) -> None:
    # Given
    bench = restartable.bench
    name = ready(bench, shell("echo kept | tee file; exec sleep 600"))

    # When
    restartable.restart()

    # I expect
    assert [frame.data for frame in bench.log(name)] == [b"kept\n"]
    assert bench.engine.stat(name, "/workspace/file") is not None


def test_processes_started_after_a_restart_are_not_lost(restartable: Restartable) -> None:
    # Given a container that was created before, and the jobs' network
    bench = restartable.bench
    network = f"test-{uuid.uuid4().hex}"
    network_id = bench.engine.create_network(network, bench.labels)
    name = bench.created(shell("exit 3"), network=network)

    # When
    restartable.restart()

    # I expect
    bench.engine.start(name)
    bench.engine.wait(name, Interrupt(), timeout=60)
    assert outcome(bench.engine.inspect(name)) == ("ended", 3, False)
    assert outcome(bench.run(shell("kill -TERM $$"), network=network)) == ("ended", 143, False)
    assert bench.engine.find_network(network_id) == network


# -- Docker only ------------------------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.alone  # its daemon changes the rules of others
@pytest.mark.parametrize("way", WAYS_DOWN)
def test_jobs_reach_the_host_after_a_restart(with_firewall: DockerBench, daemon_with_firewall: OwnDaemon, way: str) -> None:
    # Given a network, and another one with firewall rules
    network, protected = f"test-{uuid.uuid4().hex}", f"test-{uuid.uuid4().hex}"
    with_firewall.engine.create_network(network, with_firewall.labels)
    owner, firewalled = f"orc{uuid.uuid4().hex[:8]}", DockerEngine(with_firewall.host, denied=[])
    network_id = with_firewall.engine.create_network(protected, with_firewall.labels)
    firewalled.protect_network(network_id, owner)

    # When
    bring_down_and_up(daemon_with_firewall, way)
    if way == "power cut":  # the rules are gone with the host: a worker that starts installs them
        DockerEngine(with_firewall.host, denied=[]).protect_network(network_id, owner)

    # I expect a job to reach this machine through its gateway, but not from the other network
    with greeting() as port:
        gateway = "$(ip route | sed -n 's/^default via \\([^ ]*\\) .*/\\1/p')"
        command = shell(f"nc -w 20 {gateway} {port} < /dev/null")
        assert with_firewall.output(command, network=network) == "hello\n"
        assert with_firewall.output(command, network=protected) == ""
    with_firewall.clean()
    firewalled.remove_unused_rules(owner, [])


@pytest.mark.engine
def test_a_stopping_daemon_is_not_asked_for_exit_codes(plain: DockerBench, plain_daemon: OwnDaemon) -> None:
    # Given two processes, one of which delays the stop, and an open connection for each path
    name = plain.started(SLEEPS, stop_grace_seconds=GRACE)
    ready(plain, IGNORES_SIGTERM)
    plain.engine.list(plain.labels)
    plain.engine.inspect(plain.ended())

    # When the daemon is stopped, and continues to answer on these connections
    plain_daemon.ask_to_stop()
    with suppress(EngineUnavailable):  # newer engines do not continue to answer
        wait_for(lambda: phase_of(plain, name) == "ended", GRACE, "the first to be ended")

    # I expect no answer about the ended process until the daemon runs again
    with pytest.raises(EngineUnavailable):
        plain.engine.inspect(name)
    plain_daemon.wait_until_stopped()
    plain_daemon.start_again()
    assert outcome(plain.engine.inspect(name)) == ("ended", 143, True)


@pytest.mark.engine
@pytest.mark.parametrize("way", ["stop", "crash"])
def test_processes_that_outlive_their_daemon_are_not_lost(
    live_restoring: DockerBench, live_restoring_daemon: OwnDaemon, way: str
) -> None:
    # Given a process that ended earlier, one that keeps running, and one that will end while the daemon is down
    ended = live_restoring.ended(shell("exit 3"))  # first, since the daemon stores a moment later what it says already
    keeps_running = live_restoring.started(SLEEPS)
    ends = ready(live_restoring, FAILS_ON_SIGTERM)
    process = process_of(live_restoring, ends)

    # When
    WAYS_DOWN[way](live_restoring_daemon)
    os.kill(process, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{process}").exists(), 20, "the process to end")
    live_restoring_daemon.start_again()

    # I expect
    assert outcome(live_restoring.engine.inspect(keeps_running)) == ("running", None, False)
    expected = ("ended", 4, False) if live_restoring_daemon.keeps_exit_codes else ("ended", 255, True)
    assert outcome(live_restoring.engine.inspect(ends)) == expected
    assert outcome(live_restoring.engine.inspect(ended)) == ("ended", 3, False)


@pytest.mark.engine
def test_usage_outlives_the_daemon(live_restoring: DockerBench, live_restoring_daemon: OwnDaemon) -> None:
    # Given a process that has ended, and one that keeps running
    ended, keeps_running = live_restoring.ended(shell("exit 3")), live_restoring.started(SLEEPS)
    used = live_restoring.engine.inspect(ended).usage
    assert used is not None

    # When
    bring_down_and_up(live_restoring_daemon, "crash")

    # I expect the usage of both, and of a process that is started afterwards
    assert live_restoring.engine.inspect(ended).usage == used
    live_restoring.engine.stop(keeps_running, 0)
    assert live_restoring.engine.inspect(keeps_running).usage is not None
    assert live_restoring.run(shell("exit 0")).usage is not None


@pytest.mark.engine
def test_a_process_without_a_trace_is_lost_despite_live_restore(
    live_restoring: DockerBench, live_restoring_daemon: OwnDaemon
) -> None:
    # Given two processes
    keeps_running, vanishes = live_restoring.started(SLEEPS), live_restoring.started(SLEEPS)
    with closing(built_images.client(live_restoring.host)) as client:
        container = client.containers.get(vanishes)

    # When one of them and its shim, which would know the exit code, are killed while the daemon is down
    live_restoring_daemon.kill()
    for process in [*processes_with_argument(container.id), container.attrs["State"]["Pid"]]:
        os.kill(process, signal.SIGKILL)
    live_restoring_daemon.start_again()

    # I expect it to be lost, and not to have ended with Docker's 255
    assert outcome(live_restoring.engine.inspect(keeps_running)) == ("running", None, False)
    assert outcome(live_restoring.engine.inspect(vanishes)) == ("ended", 255, True)


@pytest.mark.engine
def test_a_process_whose_end_was_not_recorded_is_lost(live_restoring: DockerBench, live_restoring_daemon: OwnDaemon) -> None:
    # Given a process that keeps running, one that fails and one that succeeds just before the daemon ends
    keeps_running = live_restoring.started(SLEEPS)
    fails, succeeds = ready(live_restoring, FAILS_ON_SIGTERM), ready(live_restoring, CATCHES_SIGTERM)
    processes = [process_of(live_restoring, name) for name in (fails, succeeds)]
    with closing(built_images.client(live_restoring.host)) as client:
        container_id = str(client.containers.get(fails).id)
    live_restoring_daemon.freeze()
    for process in processes:
        os.kill(process, signal.SIGTERM)
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in processes), 20, "the processes to end")

    # When the daemon has received the failure from containerd, and is killed before it records it
    live_restoring_daemon.forget_in_containerd(container_id)
    live_restoring_daemon.kill()
    live_restoring_daemon.start_again()

    # I expect only the failed one to be lost in spite of Docker's exit code 0, even if the daemon is asked late
    assert outcome(live_restoring.run(shell("exit 0"))) == ("ended", 0, False)
    keeps = live_restoring_daemon.keeps_exit_codes
    assert outcome(live_restoring.engine.inspect(fails)) == ("ended", 0 if keeps else 255, True)
    assert outcome(live_restoring.engine.inspect(succeeds)) == (("ended", 0, False) if keeps else ("ended", 255, True))
    assert outcome(live_restoring.engine.inspect(keeps_running)) == ("running", None, False)


@pytest.mark.engine
def test_exit_code_0_is_believed_if_its_event_is_no_longer_kept(live_restoring: DockerBench) -> None:
    # Given a process that succeeded and was never inspected, and more events than the daemon keeps
    name = live_restoring.started(shell("exit 0"))
    live_restoring.engine.wait(name, Interrupt(), timeout=60)
    with closing(built_images.client(live_restoring.host)) as client:
        alpine = client.images.get("alpine:latest")
        for _ in range(256):
            alpine.tag("test", "again")
        client.images.remove("test:again")

    # When a worker inspects it that did not see the daemon's start
    late = DockerEngine(live_restoring.host)

    # I expect
    assert outcome(late.inspect(name)) == ("ended", 0, False)


@pytest.mark.engine
def test_a_power_cut_loses_running_processes_despite_live_restore(
    live_restoring: DockerBench, live_restoring_daemon: OwnDaemon
) -> None:
    # Given
    ran = [live_restoring.started(SLEEPS), ready(live_restoring, CATCHES_SIGTERM)]
    ended = live_restoring.ended(shell("exit 3"))

    # When
    bring_down_and_up(live_restoring_daemon, "power cut")

    # I expect all to be lost except the one that had ended earlier
    assert [outcome(live_restoring.engine.inspect(name)) for name in ran] == [("ended", 255, True)] * 2
    assert outcome(live_restoring.engine.inspect(ended)) == ("ended", 3, False)
    assert outcome(live_restoring.run(shell("exit 255"))) == ("ended", 255, False)


@pytest.mark.engine
def test_a_frozen_daemon_is_waited_for(plain: DockerBench, plain_daemon: OwnDaemon) -> None:
    # Given a process whose daemon is frozen
    name = plain.started(SLEEPS, stop_grace_seconds=GRACE)
    plain_daemon.freeze()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(plain.engine.inspect, name)
        with pytest.raises(TimeoutError):
            answer.result(timeout=0.5)

        # When it thaws
        plain_daemon.thaw()

        # I expect
        assert outcome(answer.result(timeout=20)) == ("running", None, False)
