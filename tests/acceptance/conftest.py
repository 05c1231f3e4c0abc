"""The service as users run it: embedded, or in the pass on PostgreSQL and Redis the production processes."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import leftovers
import pytest

from tests.helpers.service_processes import Service, installation


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path | None) -> Iterator[Service]:
    """A running service with a worker, for all tests of a module."""
    directory = tmp_path_factory.mktemp("service")
    if os.environ.get("DATABASE_URL"):
        with installation(directory) as production:
            production.start_all()
            production.wait_until_ready()
            yield production
        return
    with embedded_installation(directory, migrated_database) as embedded:
        embedded.wait_until_ready()
        yield embedded


@contextmanager
def embedded_installation(directory: Path, migrated: Path | None = None, **variables: str) -> Iterator[Service]:
    """Run an embedded installation, on a copy of a migrated database if one is given.

    What it leaves on the engine is removed at the end.
    """
    if migrated:
        shutil.copyfile(migrated, directory / "orchestrator.sqlite3")
    embedded = Service(directory, "", "", **variables)
    try:
        embedded.start("embedded")
        yield embedded
    finally:
        embedded.stop()
        with closing(sqlite3.connect(directory / "orchestrator.sqlite3")) as database:
            for (instance,) in database.execute("SELECT name FROM jobs_instance"):
                leftovers.remove(os.environ["DOCKER_HOST"], instance)
