"""What the worker needs of the process that it runs in."""

import resource
import threading

import pytest
from django.conf import settings

from jobs.errors import EngineUnavailable
from orchestrator_site.base.intervals import JobIntervals, WorkerIntervals
from orchestrator_site.processes.worker import WorkerProcess
from tests.helpers.service_log import service_log

pytestmark = pytest.mark.stateless


def test_a_worker_raises_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a process with the usual limit
    limits = [(1024, 524_288)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, changed: limits.append(changed))

    # When a worker is started in it (and stopped at once)
    stopped = threading.Event()
    stopped.set()
    WorkerProcess(settings.CONFIGURATION).start(stopped)

    # I expect enough files for the connections of all jobs that it may run
    assert limits[-1] == (4 * settings.CONFIGURATION.worker_threads + 512, 524_288)


def test_a_worker_that_cannot_start_says_each_reason_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given an engine that does not answer for a while, and then something else that is wrong
    stopped = threading.Event()
    errors = [OSError("read-only"), *[EngineUnavailable("the engine does not answer")] * 3]

    def fail(*_: object) -> None:
        error = errors.pop()
        if not errors:
            stopped.set()
        raise error

    monkeypatch.setattr("orchestrator_site.processes.worker.Supervisor", fail)

    # When a worker is started
    with service_log(caplog) as log:
        WorkerProcess(settings.CONFIGURATION, JobIntervals(worker=WorkerIntervals(start_retry=0))).start(stopped)

    # I expect a line for each reason
    assert [line["message"] for line in log.about("cannot start yet")] == [
        "cannot start yet: the engine does not answer",
        "cannot start yet: read-only",
    ]
