"""One migrated database for all processes of a test run: copying it is much cheaper than migrating another."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from tests.helpers.service_processes import migrated_template


@pytest.fixture(scope="session")
def migrated_database(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_modify_db_settings: None,
    django_db_blocker: DjangoDbBlocker,
) -> Path | None:
    """Return the path of a migrated SQLite database, which no test may change. None if the tests run on PostgreSQL."""
    if connection.vendor != "sqlite":
        return None
    directory = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        directory = directory.parent  # that of all worker processes
    path = directory / "migrated.sqlite3"
    with (directory / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not path.exists():
            with django_db_blocker.unblock():
                migrate(directory / "migrating.sqlite3")
            (directory / "migrating.sqlite3").rename(path)
    return path


def migrate(path: Path) -> None:
    """Make a database at this path with Django's connection, and let the connection have its own database again."""
    own = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = path
    try:
        call_command("migrate", interactive=False, verbosity=0)
    finally:
        connection.close()  # which also writes what is only in SQLite's log
        connection.settings_dict["NAME"] = own


@pytest.fixture(scope="session", autouse=True)
def copied_test_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let Django begin with a copy when it makes the test database, so that it finds nothing to migrate."""
    create = connection.creation._create_test_db  # type: ignore[attr-defined]

    def create_copy(verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        if connection.vendor == "postgresql":
            connection.settings_dict["TEST"]["TEMPLATE"] = migrated_template(os.environ["DATABASE_URL"])
        name: str = create(verbosity, autoclobber, keepdb)
        if connection.vendor == "sqlite":
            for log in ("-wal", "-shm"):  # of a process that ended with a connection open: they would be applied to the copy
                Path(f"{name}{log}").unlink(missing_ok=True)
            shutil.copyfile(request.getfixturevalue("migrated_database"), name)
        return name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection.creation, "_create_test_db", create_copy)
        yield
