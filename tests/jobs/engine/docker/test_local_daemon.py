"""What is known about the process behind the engine's socket, and the question that it saves."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.docker import DockerEngine
from jobs.engine.docker.local_daemon import LocalDaemon
from jobs.engine.docker.transport import EngineClient
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.engines import DockerBench
from tests.jobs.engine.docker.scripted_daemon import LATE, ScriptedDaemon, answer, inspected

pytestmark = pytest.mark.stateless


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all requests to engines."""
    paths: list[str] = []
    exchange = EngineClient.exchange

    def recorded(client: EngineClient, method: str, path: str, **options: Any) -> Any:
        paths.append(path)
        return exchange(client, method, path, **options)

    monkeypatch.setattr(EngineClient, "exchange", recorded)
    return paths


@pytest.mark.engine
def test_one_answer_serves_all_processes_that_end_under_one_daemon(docker_bench: DockerBench, requests: list[str]) -> None:
    # Given an engine of this machine that was asked for its start
    assert not docker_bench.run(("true",)).lost

    # When another process ends
    requests.clear()
    seen = docker_bench.run(("true",))

    # I expect no further question
    assert (seen.phase, seen.lost) == ("ended", False)
    assert "/networks" not in requests


def test_an_engine_behind_a_proxy_is_asked_for_every_process(daemon: ScriptedDaemon) -> None:
    # Given a socket on which another program than dockerd listens
    daemon.answers["/containers/job/json"] = inspected(started=LATE, finished=LATE)
    engine = DockerEngine(daemon.host)

    # When two processes have ended
    engine.inspect("job")
    engine.inspect("job")

    # I expect one question for each
    assert daemon.count("/networks") == 2


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:9", "unix:///nonexistent/docker.sock"])
def test_nothing_is_known_without_a_socket(host: str) -> None:
    local = LocalDaemon(host, EngineIntervals())

    assert local.process() is None
    assert local.listener().neighbour is None


LISTENS = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(5)
print("ready", flush=True)
while True:
    listener.accept()
"""


@pytest.mark.parametrize(
    ("program", "is_daemon", "is_neighbour"), [("dockerd", True, True), ("systemd", False, True), ("proxy", False, False)]
)
def test_systemd_is_not_the_daemon_but_sees_the_same_files(
    program: str, is_daemon: bool, is_neighbour: bool, tmp_path: Path
) -> None:
    # Given a socket that a program of this name has made
    (tmp_path / program).symlink_to(os.path.realpath(sys.executable))
    socket = tmp_path / "docker.sock"
    with subprocess.Popen([tmp_path / program, "-c", LISTENS, socket], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        local = LocalDaemon(f"unix://{socket}", EngineIntervals())
        listener = local.listener()
        process.kill()

    # I expect
    assert (listener.daemon is not None, listener.neighbour is not None) == (is_daemon, is_neighbour)


def test_one_connection_tells_all_about_the_process_when_an_engine_is_asked_for_its_state(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an engine that was asked before
    about = {"ID": "id", "Name": "name", "NCPU": 2, "MemTotal": 2**30, "SystemTime": LATE}
    daemon.answers["/info"] = answer(200, about)
    engine = DockerEngine(daemon.host)
    engine.info()
    looks: list[LocalDaemon] = []
    listener = LocalDaemon.listener
    monkeypatch.setattr(LocalDaemon, "listener", lambda self: looks.append(self) or listener(self))

    # When it is asked again, as every worker does every few seconds
    engine.info()

    # I expect
    assert len(looks) == 1
