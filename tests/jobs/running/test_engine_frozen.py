"""Jobs on a real Docker engine that is frozen: it accepts connections and answers nothing."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import services
from jobs.engine.docker import DockerEngine
from jobs.models import Job
from jobs.states import Reason, State
from tests.helpers.docker_daemons import OwnDaemon, own_daemon
from tests.helpers.factories import make_job
from tests.helpers.waiting import wait_for
from tests.helpers.workers import Workers, completed, running

pytestmark = [pytest.mark.engine, pytest.mark.django_db(transaction=True)]

AT_ONCE = 5.0  # seconds; every time-out of the engine's calls is longer


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDaemon]:
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("only root can start a dockerd")
    with own_daemon(tmp_path_factory.mktemp("e"), firewall=False) as own:
        yield own


@pytest.fixture
def frozen_later(own_engine: OwnDaemon) -> Iterator[OwnDaemon]:
    yield own_engine
    own_engine.thaw()


@pytest.fixture
def docker_workers(own_engine: OwnDaemon, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(DockerEngine(own_engine.host), tmp_path)
    yield workers
    workers.stop()


def test_a_frozen_engine_does_not_delay_decisions(docker_workers: Workers, frozen_later: OwnDaemon) -> None:
    # Given two running jobs, one of them with little time, and an engine that is frozen. The log of one is followed; that of
    # the other is full, and its end waited for.
    command = "echo begun; exec sleep 60"
    short = make_job(command=command, timeout_seconds=2)
    long = make_job(command=command, callback=None)
    supervisor = docker_workers.another(log_limit=1)
    for _ in range(2):
        docker_workers.run(supervisor)
    for job in (short, long):
        running(job)
    frozen_later.freeze()

    # When one times out and the other is cancelled
    services.cancel(long.id)
    wait_for(lambda: Job.objects.get(pk=short.pk).status == State.FAILED, 20, "the time-out")

    # I expect both to be decided, and to be complete soon after the engine continues
    assert Job.objects.get(pk=long.pk).status == State.CANCELLED
    frozen_later.thaw()
    assert [completed(job).reason for job in (short, long)] == [Reason.TIMEOUT, Reason.CANCELLED]
    assert [completed(job).exit_code for job in (short, long)] == [143, 143]


def test_jobs_on_a_frozen_engine_are_handed_over_at_once(docker_workers: Workers, frozen_later: OwnDaemon) -> None:
    # Given a running job on an engine that is frozen
    job = make_job(command="exec sleep 60")
    supervisor = docker_workers.another()
    thread = docker_workers.run(supervisor)
    running(job)
    frozen_later.freeze()

    # When its worker is stopped
    supervisor.stop()

    # I expect its thread to be free before the engine continues
    thread.join(AT_ONCE)
    assert not thread.is_alive()

    # And the next worker to find it running
    frozen_later.thaw()
    docker_workers.run(docker_workers.another())
    services.cancel(job.id)
    assert completed(job).exit_code == 143
