"""Redis loses its messages or is stopped: a message is only a hint."""

import time

import databases
import pytest

from tests.faults.system import System
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.timeout(300)]


@pytest.mark.long
def test_redis_is_flushed_again_and_again(system: System) -> None:
    # Given a mixed load
    system.start("worker-1", "worker-2")
    system.load.mixed(6)

    # When all messages are deleted, several times
    with system.load.posting_more():
        for _ in range(10):
            system.service.empty_redis()
            pause = time.monotonic() + system.random.uniform(0.2, 0.6)
            wait_for(lambda until=pause: time.monotonic() >= until)

    # I expect every job to end as it must, and no request to have been refused
    system.check()
    assert system.load.refusals == []


def test_redis_is_killed_and_started_empty(system: System, redis_server: databases.Server) -> None:
    # Given a mixed load
    system.start("worker-1", "worker-2")
    system.load.mixed(6)

    # When Redis is stopped for 5 s
    redis_server.kill()
    stopped_at = time.monotonic()
    with system.load.posting_more():
        wait_for(lambda: time.monotonic() >= stopped_at + 5)
    started_at = time.monotonic()
    redis_server.start()

    # I expect every job to end as it must, and no POST to have been refused
    system.check()
    assert system.load.refusals == []

    # And /readyz to have reported it
    probes = system.readiness.between(stopped_at + 1, started_at)
    assert probes
    assert {(probe.status, probe.says("broker"), probe.says("database")) for probe in probes} == {(503, "unhealthy", "healthy")}
