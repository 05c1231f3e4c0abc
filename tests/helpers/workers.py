"""Workers on one engine, as threads of the test."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from django.conf import settings
from django.db import connection

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine
from jobs.maintenance.dead_workers import declare_dead
from jobs.models import Job, Worker
from jobs.states import State
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base.intervals import EngineIntervals, JobIntervals, RunIntervals, WorkerIntervals
from tests.fake_engine import FakeEngine
from tests.helpers.waiting import wait_for

QUICK: Final = JobIntervals(
    worker=WorkerIntervals(tick=0.1),
    run=RunIntervals(retries=(0.05,)),
    engine=EngineIntervals(watch=0.1, watch_retry=0.1),
)


class Workers:
    """Supervisors with short intervals, and threads that work for them."""

    def __init__(self, engine: Engine, state_dir: Path) -> None:
        self._engine = engine
        self._intervals = QUICK
        self._configuration = replace(
            settings.CONFIGURATION,
            state_dir=state_dir,
            node_name="node",
            shutdown_grace=10.0,  # SIGTERM suffices even on a busy machine
            sandboxes=0,
        )
        self._supervisors: list[Supervisor] = []
        self._threads: list[threading.Thread] = []

    def set_intervals(self, **groups: dict[str, Any]) -> None:
        """Change intervals of the workers to come: `set_intervals(run={"stable": 0.0})`."""
        changed = {name: replace(getattr(self._intervals, name), **values) for name, values in groups.items()}
        self._intervals = replace(self._intervals, **changed)

    def another(self, **values: Any) -> Supervisor:
        """Start a supervisor. `values` replace those of the configuration."""
        supervisor = Supervisor(self._engine, replace(self._configuration, **values), self._intervals)
        supervisor.start()
        self._supervisors.append(supervisor)
        return supervisor

    def run(self, supervisor: Supervisor) -> threading.Thread:
        """Let a job thread run the jobs that there are."""

        def work() -> None:
            try:
                supervisor.run_jobs()
            finally:
                connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        self._threads.append(thread)
        return thread

    def stop(self) -> None:
        for supervisor in self._supervisors:
            supervisor.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.close()


@pytest.fixture
def workers(engine: FakeEngine, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(engine, tmp_path)
    yield workers
    workers.stop()


@pytest.fixture
def docker_workers(docker_host: str, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(DockerEngine(docker_host), tmp_path)
    yield workers
    workers.stop()


def declare_worker_dead(supervisor: Supervisor) -> None:
    """Let the others find that a worker is dead whose job thread was killed, and end its threads for sandboxes, too."""
    supervisor.sandboxes.stop()
    for thread in supervisor.sandboxes._threads:
        thread.join(20)
    worker = supervisor._heartbeat.worker_id
    assert declare_dead(worker, Worker.objects.get(pk=worker).counter)


def completed(job: Job) -> Job:
    """Wait for the job to be complete, and return it."""

    def row() -> Job | None:
        job.refresh_from_db()
        return job if job.completed_at else None

    return wait_for(row, 20, "the job's end")


def running(job: Job) -> None:
    """Wait for the job to run."""
    wait_for(lambda: Job.objects.get(pk=job.pk).status == State.RUNNING, 20, "the job to run")
