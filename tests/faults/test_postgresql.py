"""PostgreSQL is restarted, stopped or unreachable: what is acknowledged is stored, and everything continues afterwards."""

import os
import time
from urllib.parse import urlsplit

import databases
import pytest

from tests.faults.system import System, SystemOn, pass_time
from tests.helpers.tcp_proxy import TcpProxy
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seconds", [pytest.param(3, marks=pytest.mark.short), pytest.param(20, marks=pytest.mark.long)])
def test_postgresql_is_away(system: System, postgresql: databases.Server, seconds: float) -> None:
    # Given a mixed load
    system.start("worker-1", "worker-2")
    system.load.mixed(6 + seconds)
    long = system.load.long(6 + seconds)
    system.load.wait_until_running(long)

    # When the database is stopped, and started again later
    postgresql.stop()
    gone = time.monotonic()
    with system.load.posting_more():
        pass_time(seconds)
        wait_for(lambda: system.readiness.between(gone, time.monotonic()), 30, "an answer of /readyz")
        back = time.monotonic()
        postgresql.start()

    # I expect every job to end as it must, and none to have been taken over from its worker
    system.check()
    assert system.service.query("SELECT claims FROM jobs_job WHERE id = %s", long.id) == [(1,)]

    # And every refusal to have been a clean 503, and /readyz to have said why
    assert {(refusal.status, refusal.retry_after is not None) for refusal in system.load.refusals} <= {(503, True)}
    probes = system.readiness.between(gone, back)
    assert {(probe.status, probe.says("database")) for probe in probes} == {(503, "unhealthy")}
    wait_for(lambda: system.readiness.probes[-1].status == 200, 30, "/readyz to be healthy")


@pytest.mark.long
def test_a_network_drops_all_packets_to_postgresql(system_on: SystemOn, postgresql: databases.Server) -> None:
    with TcpProxy("127.0.0.1", postgresql.port) as proxy, system_on(os.environ["DOCKER_HOST"]) as system:
        # Given a mixed load on processes that reach the database through a proxy, except one worker
        direct = system.service.database_url
        proxied = urlsplit(direct)._replace(netloc=urlsplit(direct).netloc.replace(str(postgresql.port), str(proxy.port)))
        for kind in ("web", "deliver", "relay", "metrics"):
            system.service.start(kind, DATABASE_URL=proxied.geturl())
        system.service.start("worker", "worker-1", DATABASE_URL=proxied.geturl())
        system.service.wait_until_ready()
        system.load.mixed(10)
        long = system.load.long(30)
        system.load.wait_until_running(long)
        system.service.start("worker", "worker-2")

        # When the proxy passes nothing on for 25 s
        proxy.partition()
        parted = time.monotonic()
        pass_time(25)
        healed = time.monotonic()
        proxy.heal()

        # I expect the other worker to have taken over the jobs, and every job to end as it must
        system.check()
        [(claims,)] = system.service.query("SELECT claims FROM jobs_job WHERE id = %s", long.id)
        assert claims > 1

        # And /readyz to have said why it was not ready
        probes = [probe for probe in system.readiness.between(parted, healed) if probe.status is not None]
        assert probes
        assert {(probe.status, probe.says("database")) for probe in probes} == {(503, "unhealthy")}
        wait_for(lambda: system.readiness.probes[-1].status == 200, 30, "/readyz to be healthy")


@pytest.mark.long
def test_postgresql_is_restarted_again_and_again(system: System, postgresql: databases.Server) -> None:
    # Given a mixed load
    system.start("worker-1", "worker-2")
    system.load.mixed(10)

    # When the database crashes several times
    with system.load.posting_more():
        for _ in range(5):
            pass_time(system.random.uniform(0.5, 2))
            postgresql.kill()
            postgresql.start()

    # I expect every job to end as it must, and every refusal to have been a clean 503
    system.check()
    assert {(refusal.status, refusal.retry_after is not None) for refusal in system.load.refusals} <= {(503, True)}
