"""Connections to SQLite that are used again, as PostgreSQL's are by their pool.

The service holds a connection for as short as it can, and each new one reads the whole schema: that took half a millisecond,
some hundred times in a test with workers.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.backends.sqlite3.base import DatabaseWrapper


@contextmanager
def kept_connections() -> Iterator[None]:
    """Keep connections that Django closes in the block, outside a transaction, for others to the same database."""
    idle: defaultdict[str, list[sqlite3.Connection]] = defaultdict(list)
    connect, close = DatabaseWrapper.get_new_connection, DatabaseWrapper._close

    def take(database: DatabaseWrapper, parameters: dict[str, Any]) -> sqlite3.Connection:
        try:
            return idle[str(parameters["database"])].pop()
        except IndexError:
            connection: sqlite3.Connection = connect(database, parameters)
            return connection

    def keep(database: DatabaseWrapper) -> None:
        connection = database.connection
        if connection is None or connection.in_transaction:
            close(database)
        else:
            idle[str(database.settings_dict["NAME"])].append(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseWrapper, "get_new_connection", take)
        patch.setattr(DatabaseWrapper, "_close", keep)
        yield
    for connection in (one for group in idle.values() for one in group):
        connection.close()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """Keep connections to the test database, from when it is made until it is removed."""
    with kept_connections():
        yield
