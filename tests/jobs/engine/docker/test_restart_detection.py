"""Detecting restarts of the engine, from scripted answers. test_daemon_restarts.py does it with real daemons."""

import json

import pytest

from jobs.engine.docker import DockerEngine
from jobs.errors import ContainerConflict, EngineUnavailable
from tests.jobs.engine.docker.scripted_daemon import EARLY, LATE, MIDDLE, ScriptedDaemon, answer, chunked, inspected, networks

pytestmark = pytest.mark.stateless

STARTED, FINISHED = "2026-01-01T00:00:01Z", "2026-01-01T00:00:03Z"


@pytest.mark.parametrize(
    ("began", "clock", "live_restore", "exit_code", "lost"),
    [
        pytest.param(EARLY, LATE, False, 143, False, id="engine began before the process ended"),
        pytest.param(MIDDLE, LATE, False, 143, True, id="engine began after it"),
        pytest.param(MIDDLE, LATE, True, 143, False, id="engine began after it, with live-restore"),
        pytest.param(MIDDLE, EARLY, False, 143, False, id="engine's clock was set back"),
        pytest.param(None, LATE, False, 143, False, id="engine without a default network"),
    ],
)
def test_a_process_that_ended_before_the_engine_began_is_lost(
    daemon: ScriptedDaemon, began: str | None, clock: str, live_restore: bool, exit_code: int, lost: bool
) -> None:
    daemon.answers |= {
        "/containers/job/json": inspected(started=STARTED, finished=FINISHED, exit_code=exit_code),
        "/networks": answer(200, [{"Name": "my-bridge", "Created": LATE}, *networks(began)]),
        "/info": answer(200, {"SystemTime": clock, "LiveRestoreEnabled": live_restore}),
    }

    seen = DockerEngine(daemon.host).inspect("job")

    assert (seen.exit_code, seen.lost) == (exit_code, lost)


@pytest.mark.parametrize("reported", [False, True])
def test_a_process_without_a_trace_is_lost_unless_its_end_was_reported(daemon: ScriptedDaemon, reported: bool) -> None:
    # With live-restore and other running containers, it is unknown when the engine began.
    other, end = ({"Type": "container", "Action": "die", "Actor": {"ID": name}} for name in ("1", "0"))
    events = [other, end, other] if reported else [other]
    daemon.answers |= {
        "/containers/job/json": inspected(started=STARTED, finished=FINISHED, exit_code=255),
        "/networks": answer(200, networks(EARLY)),
        "/info": answer(200, {"SystemTime": LATE, "LiveRestoreEnabled": True}),
        "/events": chunked(*(json.dumps(event).encode() + b"\n" for event in events)),
    }

    assert DockerEngine(daemon.host).inspect("job").lost is not reported


def test_a_process_with_an_end_but_no_start_has_ended(daemon: ScriptedDaemon) -> None:
    # dockerd was killed before it recorded the start, found the process alive when it was restarted, and saw its end.
    daemon.answers |= {
        "/containers/job/json": inspected(finished=FINISHED, exit_code=9, status="created"),
        "/networks": answer(200, networks(EARLY)),
    }

    engine = DockerEngine(daemon.host)
    seen = engine.inspect("job")

    assert (seen.phase, seen.exit_code, seen.started_at, seen.lost) == ("ended", 9, None, False)
    with pytest.raises(ContainerConflict):
        engine.start("job")


def test_an_engine_that_cannot_say_when_it_began_is_unavailable(daemon: ScriptedDaemon) -> None:
    daemon.answers |= {
        "/containers/job/json": inspected(started=STARTED, finished=FINISHED),
        "/networks": answer(500, {"message": "shutting down"}),
    }

    with pytest.raises(EngineUnavailable, match="shutting down"):
        DockerEngine(daemon.host).inspect("job")
