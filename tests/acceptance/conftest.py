"""The service as users run it: embedded, or the production processes where bin/test gives PostgreSQL and Redis."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import leftovers
import pytest

from tests.services import ROOT, Service


@pytest.fixture
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A service that answers and has a worker."""
    if os.environ.get("DATABASE_URL"):
        production: Service = request.getfixturevalue("service")
        production.start_all()
        yield production
        return
    embedded = Service(tmp_path, "", "")
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=embedded.environment, check=True)
    try:
        embedded.start("embedded")
        yield embedded
    finally:
        embedded.stop()
        with closing(sqlite3.connect(tmp_path / "orchestrator.sqlite3")) as database:
            for (instance,) in database.execute("SELECT name FROM jobs_instance"):
                leftovers.remove(os.environ["DOCKER_HOST"], instance)
