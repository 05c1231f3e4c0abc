"""Tests in several processes at once (pytest-xdist): what each worker process has for itself, and tests that run alone."""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import pytest


def state_directory() -> Path:
    return Path(os.environ.get("STATE_DIR", "var")).absolute()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Give each worker process a state directory and Redis databases of its own; pytest-django names its SQL database."""
    for number, spec in enumerate(specs):
        directory = state_directory() / f"worker-{number}"
        directory.mkdir(parents=True, exist_ok=True)
        spec.env["STATE_DIR"] = str(directory)
        if "REDIS_URL" in os.environ:
            # The second one is for the `service` fixture.
            spec.env["REDIS_URL"] = urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{2 * number}").geturl()


class Machine:
    """The machine that the worker processes share: their tests run side by side on it, or one test has it alone."""

    def __init__(self, directory: Path) -> None:
        self._next = (directory / "next.lock").open("w")
        self._use = (directory / "use.lock").open("w")

    @contextmanager
    def used(self, *, alone: bool) -> Iterator[None]:
        with locked(self._next, fcntl.LOCK_EX):  # held while waiting: no other test overtakes one that is to run alone
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
    """Tell a worker process where the locks are."""
    node.workerinput["locks"] = str(state_directory())


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[MACHINE] = Machine(Path(config.workerinput["locks"]))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest-timeout: waiting is not part of the test
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Run a test that is marked `alone` while no other one runs."""
    machine = item.config.stash.get(MACHINE, None)
    if machine is None:
        return (yield)
    with machine.used(alone=item.get_closest_marker("alone") is not None):
        return (yield)
