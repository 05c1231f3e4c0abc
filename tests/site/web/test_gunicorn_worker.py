"""The gunicorn worker: its file descriptors, its reports and its stop."""

import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from orchestrator_site.base import stopping
from orchestrator_site.base.http.long_polls import look_until
from orchestrator_site.web import gunicorn_worker
from orchestrator_site.web.connection_table import Limits
from orchestrator_site.web.event_loop import Server
from orchestrator_site.web.gunicorn_worker import CONNECTIONS, WebWorker, connections_for
from tests.site.web.web_servers import config

pytestmark = pytest.mark.stateless


class Files:
    """Stands for this process's limit of open files."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        assert limits[0] <= limits[1] or limits[1] == resource.RLIM_INFINITY
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 524_288, 2024),
        (1024, resource.RLIM_INFINITY, 2024),
        (65_536, 524_288, 65_536),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_the_limit_of_open_files_is_raised_where_it_is_too_low(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    files = Files(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", files.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", files.setrlimit)
    assert connections_for(CONNECTIONS) == CONNECTIONS
    assert files.limits == (raised, hard)


def test_there_are_fewer_connections_where_it_cannot_be_raised_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(256, 1024)
    monkeypatch.setattr(resource, "getrlimit", files.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", files.setrlimit)
    assert connections_for(CONNECTIONS) == 512
    assert files.limits == (1024, 1024)


@pytest.fixture
def stop() -> Iterator[None]:
    stopping.stopping.set()
    yield
    stopping.stopping.clear()


@pytest.mark.usefixtures("stop")
def test_a_long_poll_ends_while_the_process_stops() -> None:
    # Given a process that was told to stop
    looks = []

    def look() -> bool:
        looks.append(True)
        return False

    # When a request waits for a condition that is never true, I expect it to return at once
    assert look_until(look, bool, 3600) is False
    assert len(looks) == 1


class Interrupted(WebWorker):
    """A worker that receives SIGQUIT while it submits a request to its threads."""

    def __init__(self, listener: socket.socket) -> None:
        self.cfg = config()
        self.alive, self.ppid, self._tick = True, os.getppid(), 1.0
        self._server = Server([listener], self.cfg, lambda *_: [], Limits())
        self._server._threads._pool._adjust_thread_count = self._quit  # type: ignore[method-assign]

    def _quit(self) -> None:
        self.handle_quit(signal.SIGQUIT, None)

    def notify(self) -> None:
        pass

    def close(self) -> None:
        self._server.close()


def test_a_quit_signal_ends_a_server_that_holds_a_lock() -> None:
    ended: list[Any] = []

    def run(worker: Interrupted) -> None:
        try:
            worker.run()
        except SystemExit as error:
            ended.append(error.code)
        worker.close()

    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=run, args=(Interrupted(listener),), daemon=True)
            thread.start()
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                thread.join(10)
    finally:
        stopping.stopping.clear()
    assert ended == [0]


class Busy(WebWorker):
    """A worker whose server handles an event every tenth of a second, for three seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alive, self.ppid, self._tick = True, os.getppid(), 1.0
        self.cfg = config()
        self._server = Mock(is_done=True, serve=self._serve_one)
        self.now = 100.0
        self.reports: list[float] = []
        monkeypatch.setattr(gunicorn_worker, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _serve_one(self, _seconds: float) -> None:
        self.now += 0.1
        self.alive = self.now < 103

    def notify(self) -> None:
        self.reports.append(round(self.now))


def test_a_busy_process_reports_to_gunicorn_once_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Busy(monkeypatch)
    worker.run()
    assert worker.reports == [100, 101, 102]
