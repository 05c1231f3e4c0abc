"""PostgreSQL behind a network that may swallow everything: no call waits for its answer for ever.

A server that lives ends what takes too long by itself, and a kernel gives up a peer that acknowledges nothing. Neither helps
where somebody in between takes our bytes and passes nothing on, or where the server is frozen: only we can tell that
no answer comes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Any, Final

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.abc import RV, PQGen
from psycopg.waiting import Ready

STATEMENT_SECONDS: Final = 15  # what the server gives a statement; the longest of ours delete a batch of old rows
LOCK_SECONDS: Final = 10
# A frozen process must not hold rows that others need. Our transactions wait for nothing but the database.
IDLE_IN_TRANSACTION_SECONDS: Final = 15
ANSWER_SECONDS: Final = STATEMENT_SECONDS + 3.0  # what we give it: its own limit comes first, where it lives
CHECK_SECONDS: Final = 3.0

_limit: ContextVar[float] = ContextVar("limit", default=ANSWER_SECONDS)


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself and raises psycopg's `OperationalError` where an answer does not come in time.

    What it had asked for may have been done: as with every connection that is lost.
    """

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        return super().wait(self._bounded(gen, _limit.get()), interval, timeout)

    def execute(self, *args: Any, **options: Any) -> Any:
        """The pool asks by this whether it may hand the connection out: one that is well says so at once.

        Nobody else does, Django has cursors of its own.
        """
        with answers_within(CHECK_SECONDS):
            return super().execute(*args, **options)

    def _bounded(self, gen: PQGen[RV], seconds: float) -> PQGen[RV]:
        """Psycopg asks at every interval in which nothing came, too."""
        deadline = monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready == Ready.NONE and monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {seconds:g} s: the connection is given up")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Another limit for each of this thread's calls."""
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def lends_within(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Raise Django's `OperationalError` where its pool has no connection that is well so soon: a request waits longer for one.

    Does nothing for a database without a pool.
    """
    pool = getattr(connection, "pool", None)
    if pool is not None:
        with connection.wrap_database_errors:
            pool.open()
            pool.putconn(pool.getconn(seconds))


@contextmanager
def unlimited(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """No limit on what this thread does with this connection, except on its waiting for locks."""
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    with connection.cursor() as cursor:
        for name in limits:
            cursor.execute(f"SET {name} = 0")
    with answers_within(inf):
        yield
    with connection.cursor() as cursor:
        for name in limits:
            cursor.execute(f"RESET {name}")


def options() -> dict[str, Any]:
    """Django's OPTIONS for this."""
    return {
        "connect_timeout": 5,
        # A peer that acknowledges nothing is given up by the kernel, before we do it.
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": 15_000,  # milliseconds
        "options": (
            f"-c lock_timeout={LOCK_SECONDS}s -c statement_timeout={STATEMENT_SECONDS}s"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS}s"
        ),
        "pool": {
            "connection_class": BoundedConnection,
            "min_size": 0,
            "max_size": 16,
            "max_idle": 60,
            "timeout": 8,
            # Soon, so that whoever comes next has it tried at once: the pool itself waits twice as long each time.
            "reconnect_timeout": 5,
        },
    }
