"""A PostgreSQL connection on which no call waits forever. Free of Django.

A live server ends slow statements by itself, and the kernel gives up a peer that acknowledges nothing. Neither helps if a
proxy accepts our bytes and forwards nothing, or if the server is frozen: then the client has to give up.
"""

import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Any, ClassVar

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.waiting import Ready

from orchestrator_site.base.intervals import DatabaseIntervals

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


def parameters(intervals: DatabaseIntervals, **settings: str) -> dict[str, Any]:
    """Return the parameters of a connection whose server and kernel keep these limits, with further settings of its session."""
    limits = {
        "lock_timeout": intervals.lock,
        "statement_timeout": intervals.statement,
        "idle_in_transaction_session_timeout": intervals.idle_in_transaction,
    }
    session: Mapping[str, str] = {name: f"{round(seconds * 1000)}ms" for name, seconds in limits.items()} | settings
    return {
        "connect_timeout": round(intervals.connect),
        "keepalives": 1,
        "keepalives_idle": round(intervals.keepalive),
        "keepalives_interval": round(intervals.keepalive),
        "keepalives_count": 2,
        "tcp_user_timeout": round(intervals.unacknowledged * 1000),
        "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
    }
