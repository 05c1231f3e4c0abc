"""Run tests in several worker processes (pytest-xdist), each with its own databases, and some tests alone on the engine."""

import fcntl
import os
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import environment
import pytest
from xdist.scheduler import LoadFileScheduling

TESTS = Path(__file__).resolve().parents[1]
# The files that take many seconds for their number of tests, the longest first.
LONG_FILES = [
    TESTS / name
    for name in (
        "faults/test_cluster.py",
        "jobs/engine/docker/test_daemon_restarts.py",
        "jobs/running/test_killed_workers.py",
        "acceptance/test_secrets.py",
        "acceptance/test_alerts.py",
        "site/browsers/test_admin_requests.py",
        "faults/test_engine.py",
        "site/browsers/test_admin_in_chromium.py",
        "project/test_setup.py",
        "faults/test_delivery_kill.py",
        "site/base/db/test_postgresql.py",
        "jobs/logs/test_backpressure.py",
        "acceptance/test_key_rotation.py",
        "acceptance/test_predecessor.py",
        "jobs/worker/test_sandboxes_docker.py",
        "jobs/engine/test_engine_logs.py",
        "jobs/logs/test_backpressure_of_jobs.py",
        "project/test_docs_callbacks.py",
        "jobs/engine/docker/test_init.py",
        "acceptance/test_jobs.py",
        "site/browsers/test_openapi.py",
        "faults/test_processes.py",
        "jobs/engine/test_engine_containers.py",
        "acceptance/test_restore.py",
        "site/admin/test_lists.py",
        "site/client/test_command_line.py",
        "jobs/engine/docker/disk/test_storage_limit.py",
        "project/test_deployment.py",
        "jobs/engine/test_engine_isolation.py",
        "jobs/worker/disk/test_full_disk_docker.py",
        "jobs/running/test_failures.py",
        "callbacks/delivery/test_delivery_properties.py",
        "acceptance/test_metrics.py",
        "site/processes/test_embedded.py",
        "project/test_deployed_containers.py",
        "faults/test_namespace_limits.py",
        "acceptance/test_documented_requests.py",
        "faults/test_postgresql.py",
        "jobs/worker/test_sandbox_pool.py",
        "site/admin/test_start_page_cost.py",
        "site/base/http/test_body_memory.py",
        "jobs/logs/test_log_costs.py",
        "faults/test_redis.py",
        "jobs/engine/docker/test_sandboxes.py",
        "jobs/test_lifecycle.py",
        "site/ops/test_metrics_database.py",
        "jobs/api/test_job_list_cost.py",
        "acceptance/test_command_line.py",
        "project/test_demo.py",
        "jobs/engine/test_engine_usage.py",
        "jobs/api/test_namespaces.py",
        "jobs/engine/test_engine_sandboxes.py",
        "site/processes/test_imports.py",
        "jobs/admin/test_job_page_in_chromium.py",
        "acceptance/test_hostile_clients.py",
        "jobs/admin/test_job_page.py",
        "jobs/api/test_jobs_create.py",
        "callbacks/test_admin.py",
        "project/test_docs.py",
        "callbacks/delivery/test_failing_destinations.py",
        "jobs/transfers/test_put_inputs.py",
        "jobs/logs/test_reading_on.py",
        "callbacks/delivery/test_killed_deliveries.py",
        "jobs/running/test_turns.py",
        "jobs/worker/test_slow_transfers.py",
        "project/test_own_engine.py",
        "callbacks/delivery/test_event_runs.py",
        "jobs/engine/test_engine_images.py",
        "project/test_serve.py",
        "jobs/engine/docker/test_job_runtime.py",
        "jobs/running/test_engine_frozen.py",
        "jobs/engine/test_engine_files.py",
        "callbacks/delivery/test_stream_delivery.py",
        "jobs/running/test_disk_limit_docker.py",
        "jobs/running/test_job_costs.py",
        "jobs/running/test_job_files.py",
        "jobs/running/test_failing_starts_docker.py",
        "jobs/logs/test_rotated_logs.py",
        "callbacks/delivery/test_rate_limits.py",
        "jobs/test_node_hints.py",
        "jobs/admin/test_log_view.py",
        "project/test_readme.py",
        "site/browsers/test_content_security.py",
        "acceptance/test_forwarded_headers.py",
        "site/browsers/test_generated_client.py",
        "jobs/api/test_log_stream.py",
        "jobs/engine/test_engine_processes.py",
        "jobs/transfers/test_transfer_memory.py",
        "jobs/engine/test_engine_stopping.py",
    )
]


def state_directory() -> Path:
    """Return the state directory of the whole run."""
    return Path(os.environ.get("STATE_DIR", "var")).absolute()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Give each worker process its own state directory and Redis databases. pytest-django gives it an SQL database."""
    for number, spec in enumerate(specs):
        directory = state_directory() / f"worker-{number}"
        directory.mkdir(parents=True, exist_ok=True)
        spec.env["STATE_DIR"] = str(directory)
        if "REDIS_URL" in os.environ:
            # Two for each: the second is that of the `service` fixture.
            spec.env["REDIS_URL"] = urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{2 * number}").geturl()


class SharedEngine:
    """A lock on the engine that the worker processes share. A test that needs it holds it with others, or alone."""

    def __init__(self, directory: Path) -> None:
        self._next = (directory / "next.lock").open("w")
        self._use = (directory / "use.lock").open("w")

    @contextmanager
    def used(self, *, alone: bool) -> Iterator[None]:
        """Hold the engine for one test."""
        with locked(self._next, fcntl.LOCK_EX):  # held while waiting, so that later tests cannot delay one that runs alone
            fcntl.flock(self._use, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._use, fcntl.LOCK_UN)


@contextmanager
def locked(file: IO[str], operation: int) -> Iterator[None]:
    fcntl.flock(file, operation)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


SHARED_ENGINE = pytest.StashKey[SharedEngine]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the directory of the locks to a worker process."""
    node.workerinput["locks"] = str(state_directory())


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[SHARED_ENGINE] = SharedEngine(Path(config.workerinput["locks"]))
        # A port is free until a service has started that is to use it: no two processes may choose the same.
        number = int(config.workerinput["workerid"].removeprefix("gw"))
        environment.PORTS = environment.PORTS[number :: config.workerinput["workercount"]]
    elif hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # the worker processes sort the tests, see below


class FilesAndAlone(LoadFileScheduling):
    """Gives each file to a process, and all files with tests that run alone to the same one: elsewhere they only waited."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "alone" if has_alone(TESTS.parent / file) else file


@cache
def has_alone(path: Path) -> bool:
    """Return whether a file has tests that run alone: by their mark, or by `tests/faults/conftest.py`."""
    marks = ("pytest.mark.alone", "pytest.mark.engine") if TESTS / "faults" in path.parents else ("pytest.mark.alone",)
    return any(mark in path.read_text() for mark in marks)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return FilesAndAlone(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)  # after those that leave out tests
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the files: with tests that run alone, without an engine, with one; the longest first, then those with most tests.

    pytest-xdist gives out the files in this order. So one process runs the tests that run alone while the others run those
    without an engine. A process that gets a long file last works on it while the others have ended.
    """
    if hasattr(config, "workerinput"):
        engine = {item.path for item in items if needs_engine(item)}
        ranks = {path: rank for rank, path in enumerate(LONG_FILES)}
        tests = Counter(item.path for item in items)

        def place(item: pytest.Item) -> tuple[bool, bool, int, int]:
            path = item.path
            return not has_alone(path), path in engine, ranks.get(path, len(ranks)), -tests[path]

        items.sort(key=place)


def needs_engine(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(mark) for mark in ("engine", "kubernetes", "production"))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside pytest-timeout: waiting is not part of the test
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Run the test; if it is marked so, while no other uses the engine."""
    engine = item.config.stash.get(SHARED_ENGINE, None)
    alone = item.get_closest_marker("alone") is not None
    if engine is None or not (alone or needs_engine(item)):
        return (yield)
    with engine.used(alone=alone):
        return (yield)
