"""What the worker needs of the process that it runs in."""

import resource
import threading

import pytest
from django.conf import settings

from orchestrator_site.processes.worker import WorkerProcess

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
