"""Processes of the service are killed, stopped and frozen: the others continue, and nothing is done twice."""

import signal
import subprocess
import time

import pytest

from tests.faults.system import System, pass_time
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.production, pytest.mark.timeout(300)]

NAMES = ("web", "worker-1", "worker-2", "deliver", "relay", "metrics")
HAND_OVER_SECONDS = 5.0
MAX_PAUSE = 1.2  # seconds between a kill and the next start


@pytest.mark.parametrize("rounds", [pytest.param(4, marks=pytest.mark.short), pytest.param(20, marks=pytest.mark.long)])
def test_kill_9_of_any_processes_at_any_moment(system: System, rounds: int) -> None:
    # Given two workers on one engine and a mixed load
    system.start("worker-1", "worker-2")
    system.load.mixed(rounds * 1.5)

    # When some of the processes are killed at random moments, again and again, while more jobs are posted
    with system.load.posting_more():
        for _ in range(rounds):
            pass_time(system.random.uniform(0, MAX_PAUSE))
            killed = system.random.sample(NAMES, system.random.randint(1, len(NAMES)))
            for name in killed:
                system.service.kill(name)
            pass_time(system.random.uniform(0, MAX_PAUSE))
            for name in killed:
                system.service.restart(name)

    # I expect every job to end as it must, and nothing to be left over
    system.check()

    # And no request to have been refused, except by a missing process
    assert {refusal.status for refusal in system.load.refusals} <= {None}
    wait_for(lambda: system.readiness.probes[-1].status == 200, 30, "/readyz to be healthy")


@pytest.mark.long
def test_a_worker_is_replaced(system: System) -> None:
    """A rolling deploy."""
    # Given a worker with a mixed load, and a job that takes the engine longer to stop than the worker may take
    system.start("worker-1")
    system.load.mixed(10, transfers=2)
    long, ignoring = system.load.long(15), system.load.ignores_sigterm()
    for task in (long, ignoring):
        system.load.wait_until_running(task)
    system.load.cancel(ignoring)
    pass_time(2)  # the worker sees the cancel within one

    # When another is started and the first is stopped
    system.service.start("worker", "worker-2")
    told = time.monotonic()
    with system.load.posting_more():
        assert system.service.terminate("worker-1") == 0
        ended = time.monotonic()

        # I expect the other one to own all jobs within seconds
        wait_for(lambda: has_owner(system, long.id), HAND_OVER_SECONDS, "the job to be handed over")
    assert ended - told < HAND_OVER_SECONDS

    # And every job to end as it must, started once, and /readyz to be healthy throughout
    system.check()
    assert system.load.refusals == []
    assert {probe.status for probe in system.readiness.between(told, time.monotonic())} == {200}


@pytest.mark.long
def test_a_worker_is_frozen_while_another_takes_over(system: System) -> None:
    # Given two workers, and one of them with a mixed load
    system.start("worker-1")
    system.load.mixed(20, transfers=2)
    long = system.load.long(45)
    system.load.wait_until_running(long)
    system.service.start("worker", "worker-2")

    # When the first is frozen for 40 s
    system.service.freeze("worker-1")
    with system.load.posting_more():
        pass_time(25)
        # I expect the other one to own its jobs
        assert has_owner(system, long.id)
        assert system.service.query("SELECT claims FROM jobs_job WHERE id = %s", long.id) == [(2,)]
        pass_time(15)

    # When it continues
    system.service.thaw("worker-1")

    # I expect its writes to be refused, and every job to end as it must, started once
    system.check()
    assert "was declared dead and starts over" in system.service.log("worker-1")


@pytest.mark.long
def test_a_relay_and_a_deliverer_are_frozen_for_a_while(system: System) -> None:
    # Given a mixed load
    system.start()
    system.load.mixed(6)

    # When both are frozen for longer than a lease, while another of each kind is started
    for name in ("relay", "deliver"):
        system.service.freeze(name)
        system.service.start(name, f"{name}-2")
    with system.load.posting_more():
        pass_time(35)
    for name in ("relay", "deliver"):
        system.service.thaw(name)

    # I expect every job to end as it must
    system.check()


@pytest.mark.long
def test_a_migration_in_the_middle_of_jobs(system: System) -> None:
    """A release only adds to the database, and gives up rather than block other processes (docs/operations.md)."""
    # Given a mixed load
    system.start("worker-1")
    system.load.mixed(8)
    long = system.load.long(10)
    system.load.wait_until_running(long)

    # When migrations run, and each table gets a column and an index, as in a later release
    with system.load.posting_more():
        system.service.manage("migrate", "--noinput", env=system.service.environment)
        for table in ("jobs_job", "callbacks_event", "callbacks_subscription"):
            system.service.query(f"SET lock_timeout = '10s'; ALTER TABLE {table} ADD COLUMN added_later integer NULL")
            system.service.query(f"CREATE INDEX ON {table} (added_later)")

        # And the processes are replaced, one after the other
        for name in ("relay", "deliver", "web"):
            system.service.processes[name].send_signal(signal.SIGTERM)
            wait_ended(system.service.processes[name])
            system.service.restart(name)
        system.service.start("worker", "worker-2")
        system.service.terminate("worker-1")

    # I expect every job to end as it must, started once
    system.check()


def wait_ended(process: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: process.poll() is not None, 30, "the process to end")


def has_owner(system: System, job_id: str) -> bool:
    return system.service.query("SELECT owner_id IS NOT NULL FROM jobs_job WHERE id = %s", job_id) == [(True,)]
