"""Run tests in several worker processes (pytest-xdist), each with its own databases, and some tests alone."""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import pytest


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


class Machine:
    """A lock on the machine that the worker processes share. A test holds it with others, or alone."""

    def __init__(self, directory: Path) -> None:
        self._next = (directory / "next.lock").open("w")
        self._use = (directory / "use.lock").open("w")

    @contextmanager
    def used(self, *, alone: bool) -> Iterator[None]:
        """Hold the machine for one test."""
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


MACHINE = pytest.StashKey[Machine]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the directory of the locks to a worker process."""
    node.workerinput["locks"] = str(state_directory())


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[MACHINE] = Machine(Path(config.workerinput["locks"]))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside pytest-timeout: waiting is not part of the test
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Run the test, alone if it is marked so."""
    machine = item.config.stash.get(MACHINE, None)
    if machine is None:
        return (yield)
    with machine.used(alone=item.get_closest_marker("alone") is not None):
        return (yield)
