"""The embedded service's process is watched by one that loads nothing of the service."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gunicorn.arbiter import Arbiter

from orchestrator_site import embedded_service
from orchestrator_site.base.intervals import EmbeddedIntervals
from orchestrator_site.embedded import EmbeddedApplication, EmbeddedWorker
from tests.helpers.service_processes import COMMANDS, ROOT, Service
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Service]:
    """An installation whose engine does not answer, with an empty state directory."""
    service = Service(tmp_path, "", "", DOCKER_HOST="unix:///nowhere.sock")
    yield service
    service.stop()


def child_of(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def test_a_service_that_dies_is_started_again_until_its_database_can_be_opened(embedded: Service) -> None:
    # Given a running service
    parent = embedded.start("embedded")
    first = child_of(parent)
    database = embedded.directory / "orchestrator.sqlite3"

    # When it dies, and its database cannot be opened
    database.rename(embedded.directory / "elsewhere")
    database.mkdir()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: embedded.log("embedded").count("unable to open database file") > 1, what="a failed start")

    # I expect it to be started again until the database is back
    database.rmdir()
    (embedded.directory / "elsewhere").rename(database)
    wait_for(lambda: embedded._is_live("embedded"), what="the service to answer")
    assert child_of(parent) not in (0, first)
    assert embedded.terminate("embedded") == 0


def test_a_service_that_cannot_open_its_database_at_its_start_ends(embedded: Service) -> None:
    (embedded.directory / "orchestrator.sqlite3").mkdir()
    command = [sys.executable, *COMMANDS["embedded"]]
    ended = subprocess.run(command, cwd=ROOT, env=embedded.environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == Arbiter.WORKER_BOOT_ERROR
    assert "unable to open database file" in ended.stderr


@pytest.fixture
def worker() -> Iterator[EmbeddedWorker]:
    """The process before it has loaded the service."""
    application = EmbeddedApplication()
    worker = EmbeddedWorker(1, os.getpid(), [], application, 30, application.cfg, None)
    yield worker
    worker.tmp.close()


@pytest.mark.parametrize("stop", ["handle_exit", "handle_quit"])
def test_a_process_that_is_still_loading_ends_at_once(worker: EmbeddedWorker, stop: str) -> None:
    # When it is told to stop, I expect it to end: there is nothing to hand over
    with pytest.raises(SystemExit):
        getattr(worker, stop)(signal.SIGTERM, None)


@pytest.mark.parametrize("stop", ["handle_exit", "handle_quit"])
def test_a_process_that_migrates_its_database_ends_at_once(
    worker: EmbeddedWorker, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that is told to stop during a migration, which may take long
    def migrate(command: str, **_: object) -> None:
        commands.append(command)
        getattr(worker, stop)(signal.SIGTERM, None)

    commands: list[str] = []
    monkeypatch.setattr(embedded_service, "call_command", migrate)

    # When it loads the service, I expect it to end without the rest
    with pytest.raises(SystemExit):
        worker.load_wsgi()
    assert commands == ["migrate"]


def test_a_process_pauses_before_it_loads_the_service(worker: EmbeddedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process whose predecessor has failed to start, which is told to stop while it pauses
    monkeypatch.setattr(EmbeddedWorker, "_failed_starts", 1)
    monkeypatch.setattr("orchestrator_site.embedded.time.sleep", lambda _: worker.handle_exit(signal.SIGTERM, None))
    prepared: list[str] = []

    def prepare(command: str, **_: object) -> None:
        prepared.append(command)
        raise SystemExit

    monkeypatch.setattr(embedded_service, "call_command", prepare)

    # When it is to load the service, I expect it to end without having touched the database
    with pytest.raises(SystemExit):
        worker.load_wsgi()
    assert prepared == []


def test_failed_starts_in_a_row_make_the_next_ones_wait_longer(worker: EmbeddedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a parent that has seen some processes end before the service had started, then one that ended later
    monkeypatch.setattr(EmbeddedWorker, "_failed_starts", 0)
    pauses: list[float] = []
    monkeypatch.setattr("orchestrator_site.embedded.time.sleep", pauses.append)

    # When it starts the next one each time
    for has_started in (False, False, False, *[False] * 50, True):
        worker._pause()
        ended = EmbeddedWorker(1, os.getpid(), [], worker.app, 30, worker.cfg, None)
        ended._has_started[0] = has_started
        EmbeddedWorker.count_failures(None, ended)
        ended.tmp.close()
    worker._pause()

    # I expect no pause before the first, longer and longer ones within bounds after it, and none in the end
    intervals = EmbeddedIntervals()
    assert pauses[:3] == [intervals.restart, 2 * intervals.restart, 4 * intervals.restart]
    assert pauses[-1] == max(pauses) == intervals.restart_max
    assert len(pauses) == 53
