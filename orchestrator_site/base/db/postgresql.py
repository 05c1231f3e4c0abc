"""Django's connections to PostgreSQL: on none does a call wait forever (`bounded_connections`)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import Any, Final, Self

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from orchestrator_site.base.db.bounded_connections import BoundedConnection, answer_limit, parameters
from orchestrator_site.base.intervals import DatabaseIntervals

MAX_CONNECTIONS: Final = 8  # of a process. More would not help: its threads take turns, and hold one for a few milliseconds


def check_pool(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Raise Django's `OperationalError` unless the connection's pool has a working connection within `seconds`.

    A request would wait longer for one. Do nothing for a database without a pool.
    """
    pool = getattr(connection, "pool", None)
    if pool is not None:
        with connection.wrap_database_errors:
            pool.open()
            pool.putconn(pool.getconn(seconds))


@contextmanager
def unlimited(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Remove the time limits of this thread on this connection, except the one on waiting for locks."""
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    with connection.cursor() as cursor:
        for name in limits:
            cursor.execute(f"SET {name} = 0")
    with answer_limit(inf):
        yield
    with connection.cursor() as cursor:
        for name in limits:
            cursor.execute(f"RESET {name}")


class _PreparedCursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        # With a threshold, psycopg counts all statements, whether they can be prepared or not: a connection would keep the last
        # 100 texts, with the values in them.
        self.connection.prepare_threshold = 0
        try:
            return super().execute(query, params, prepare=True, **options)
        finally:
            self.connection.prepare_threshold = None


class _BinaryCursor(psycopg.Cursor[Any]):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.format = psycopg.pq.Format.BINARY


def cursor_for_large_values(connection: BaseDatabaseWrapper) -> AbstractContextManager[Any]:
    """Open a cursor that sends parameters beside the statement, and sends and receives bytes as they are.

    Usually parameters become part of the statement's text, and a byte takes two characters in both directions. To store eight
    events of 48 KiB, PostgreSQL took 6.9 ms of CPU that way and takes 1.9 ms this way, and this process 2.7 ms and 0.4 ms; to
    read one, 0.22 ms and 0.05 ms, and 0.17 ms and 0.05 ms.
    """
    return _cursor(connection, _BinaryCursor)


def prepared_cursor(connection: BaseDatabaseWrapper) -> AbstractContextManager[Any]:
    """Open a cursor for statements that PostgreSQL parses and plans once for each connection.

    Each must have a constant text, because a connection keeps the last 100, and must find its rows by a unique index, because the
    plan may have been made while the table was empty.
    """
    return _cursor(connection, _PreparedCursor)


@contextmanager
def _cursor(connection: BaseDatabaseWrapper, factory: type[psycopg.Cursor[Any]]) -> Iterator[Any]:
    """Open a cursor of this class. For another database, it is an ordinary one."""
    driver: Any = connection
    if connection.vendor != "postgresql":
        with driver.cursor() as cursor:
            yield cursor
        return
    driver.ensure_connection()
    usual, driver.connection.cursor_factory = driver.connection.cursor_factory, factory
    try:
        cursor = driver.cursor()
    finally:
        driver.connection.cursor_factory = usual
    with cursor:
        yield cursor


def options(intervals: DatabaseIntervals = DatabaseIntervals()) -> dict[str, Any]:
    """Return the OPTIONS of Django's database settings."""
    return {
        **parameters(intervals),
        "pool": {
            "connection_class": BoundedConnection,
            "min_size": 0,
            "max_size": MAX_CONNECTIONS,
            "max_idle": intervals.pool_idle,
            "timeout": intervals.pool_wait,
            "reconnect_timeout": intervals.pool_reconnect,
        },
    }
