"""Engines that are unreachable, hang up, or answer nonsense."""

from collections.abc import Callable

import pytest

from jobs.engine.docker import DockerEngine
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from tests.jobs.engine.docker.scripted_daemon import EARLY, ScriptedDaemon, answer, networks
from tests.jobs.engine.docker.test_log_streams import read

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize(
    ("host", "reason"),
    [("unix:///nonexistent/docker.sock", "No such file or directory"), ("tcp://127.0.0.1:9", "Connection refused")],
)
def test_every_call_to_an_unreachable_engine_is_unavailable(host: str, reason: str) -> None:
    engine = DockerEngine(host)
    calls: list[Callable[[], object]] = [
        engine.info,
        lambda: engine.inspect("job"),
        lambda: engine.start("job"),
        lambda: engine.wait("job", Interrupt()),
        lambda: engine.put("job", "/", [b""]),
        lambda: engine.ensure_image("alpine", "missing", 10, Interrupt()),
        lambda: read(engine),
    ]

    for call in calls:
        with pytest.raises(EngineUnavailable, match=f"^the engine does not answer: {reason}$"):
            call()


@pytest.mark.parametrize("host", ["nonsense://x", "tcp://", "unix"])
def test_a_malformed_host_is_refused_at_once(host: str) -> None:
    with pytest.raises(EngineRefused, match="DOCKER_HOST"):
        DockerEngine(host)


def test_an_engine_that_hangs_up_is_unavailable(daemon: ScriptedDaemon) -> None:
    daemon.answers["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"

    with pytest.raises(EngineUnavailable):
        DockerEngine(daemon.host).info()


def test_an_endless_answer_is_not_read_to_its_end(daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.engine.docker.transport.engine_answers._MAX_ANSWER_BYTES", 1000)
    daemon.answers["/info"] = answer(200, {"ID": "x" * 1000})

    with pytest.raises(EngineRefused, match="too long"):
        DockerEngine(daemon.host).info()


def test_the_engines_start_is_asked_over_new_connections(daemon: ScriptedDaemon) -> None:
    # Given an engine that keeps connections open
    daemon.close_after_answer = False
    daemon.answers["/networks"] = answer(200, networks(EARLY)).replace(b"close", b"keep-alive")

    # When
    engine = DockerEngine(daemon.host)
    engine._restarts.incarnation()

    # I expect the connection not to be reused: a dockerd that is stopping still answers on open ones
    (request,) = [head for head in daemon.requests if b"/networks" in head]
    assert b"Connection: close" in request
