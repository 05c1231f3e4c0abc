"""Short transactions and reads for threads that mostly wait for something else."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models import Model, QuerySet

# The database is unreachable or failing, whatever the statement was: try again. psycopg raises `InternalError` for a primary
# that was demoted (25006, read-only) and for a session that the server ended because this process was frozen in a
# transaction (25P03).
DATABASE_UNAVAILABLE: Final = (OperationalError, InterfaceError, InternalError)

_in_short_transaction: ContextVar[bool] = ContextVar("in_short_transaction", default=False)
_keeps_connection: ContextVar[bool] = ContextVar("keeps_connection", default=False)


def release_connection() -> None:
    """Give this thread's connection back to the pool, for example before it waits for an engine. Not in a transaction."""
    if not (connection.in_atomic_block or _keeps_connection.get()):
        connection.close()


@contextmanager
def one_connection() -> Iterator[None]:
    """Let the short transactions and reads of the block use one connection: taking one from the pool costs as much as a query."""
    token = _keeps_connection.set(True)
    try:
        yield
    finally:
        _keeps_connection.reset(token)
        release_connection()


@contextmanager
def short_transaction() -> Iterator[None]:
    """Run the block in a transaction, then give the connection back: 200 running jobs need a handful of connections.

    Inside another such block it is a part of that transaction: what several functions change is then committed together, and
    an error that leaves any of them undoes everything.
    """
    is_part = _in_short_transaction.get()
    token = _in_short_transaction.set(True)
    try:
        with transaction.atomic(savepoint=not is_part):
            yield
    finally:
        _in_short_transaction.reset(token)
        release_connection()


@contextmanager
def short_read() -> Iterator[None]:
    """Run the block outside a transaction, then give the connection back."""
    try:
        yield
    finally:
        release_connection()


def delete_in_batches(rows: QuerySet[Model], size: int) -> None:
    """Delete `rows` and what refers to them, `size` rows per transaction, so that others do not wait long for locks."""
    while identities := list(rows.values_list("pk", flat=True)[:size]):
        with short_transaction():
            rows.model._default_manager.filter(pk__in=identities).only("pk").delete()
