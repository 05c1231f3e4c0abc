"""Rules for using the database from threads that mostly wait for something else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models import Model, QuerySet

# The database does not answer as it should, which says nothing of what it was asked: try again. `InternalError` is what
# psycopg makes of a primary that was demoted (25006, read-only now) and of a session that the server ended because this
# process was frozen amid a transaction (25P03).
DATABASE_UNAVAILABLE: Final = (OperationalError, InterfaceError, InternalError)


def release_connection() -> None:
    """Give this thread's connection back to the pool, before it blocks on an engine or a peer."""
    if not connection.in_atomic_block:
        connection.close()


@contextmanager
def short_transaction() -> Iterator[None]:
    """One transaction, after which the thread holds no connection (200 running jobs need a handful)."""
    try:
        with transaction.atomic():
            yield
    finally:
        release_connection()


@contextmanager
def short_read() -> Iterator[None]:
    """A few reads outside a transaction, after which the thread holds no connection."""
    try:
        yield
    finally:
        release_connection()


def delete_in_batches(rows: QuerySet[Model], size: int) -> None:
    """Delete so many rows at a time, each lot in a transaction of its own: nobody waits for long, least of all on SQLite.

    What refers to the rows goes with them.
    """
    while identities := list(rows.values_list("pk", flat=True)[:size]):
        with short_transaction():
            rows.model._default_manager.filter(pk__in=identities).only("pk").delete()
