"""PostgreSQL connections on which no call waits forever.

A live server ends slow statements by itself, and the kernel gives up a peer that acknowledges nothing. Neither helps if a
proxy accepts our bytes and forwards nothing, or if the server is frozen: then the client has to give up.
"""

import select
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Any, ClassVar, Final, Self

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.abc import RV, PQGen
from psycopg.waiting import Ready

from orchestrator_site.base.intervals import DatabaseIntervals

MAX_CONNECTIONS: Final = 8  # of a process. More would not help: its threads take turns, and hold one for a few milliseconds
_limit: ContextVar[float | None] = ContextVar("limit", default=None)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that closes itself and raises psycopg's `OperationalError` if an answer does not come in time.

    As with every lost connection, the statement may have been executed.
    """

    intervals: ClassVar[DatabaseIntervals] = DatabaseIntervals()
    _answered_at = -inf

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        limit = _limit.get()
        answer = super().wait(self._bounded(gen, self.intervals.answer if limit is None else limit), interval, timeout)
        self._answered_at = monotonic()
        return answer

    def execute(self, *args: Any, **options: Any) -> Any:
        """Execute the statement of the pool's health check, with a short limit. Nothing else calls this: Django uses cursors.

        Skip it if the server has answered a moment ago and not said anything since, as it does when it closes the connection.
        """
        if monotonic() - self._answered_at < self.intervals.pool_trust and not self._has_unread_bytes:
            return None
        with answer_limit(self.intervals.pool_check):
            return super().execute(*args, **options)

    @property
    def _has_unread_bytes(self) -> bool:
        """Whether the server has sent something, or closed the connection."""
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))

    def _bounded(self, gen: PQGen[RV], seconds: float) -> PQGen[RV]:
        """Raise `OperationalError` after `seconds`. Psycopg also resumes `gen` after each interval without data."""
        deadline = monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready == Ready.NONE and monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {seconds:g} s: connection closed")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result


@contextmanager
def answer_limit(seconds: float) -> Iterator[None]:
    """Set another limit for each of this thread's calls inside the block."""
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


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
    limits = {
        "lock_timeout": intervals.lock,
        "statement_timeout": intervals.statement,
        "idle_in_transaction_session_timeout": intervals.idle_in_transaction,
    }
    return {
        "connect_timeout": round(intervals.connect),
        "keepalives": 1,
        "keepalives_idle": round(intervals.keepalive),
        "keepalives_interval": round(intervals.keepalive),
        "keepalives_count": 2,
        "tcp_user_timeout": round(intervals.unacknowledged * 1000),
        "options": " ".join(f"-c {name}={round(seconds * 1000)}ms" for name, seconds in limits.items()),
        "pool": {
            "connection_class": BoundedConnection,
            "min_size": 0,
            "max_size": MAX_CONNECTIONS,
            "max_idle": intervals.pool_idle,
            "timeout": intervals.pool_wait,
            "reconnect_timeout": intervals.pool_reconnect,
        },
    }
