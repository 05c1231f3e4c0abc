"""Database errors that mean "try again", and connections that are given back."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Thread

import psycopg
import pytest
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test.utils import CaptureQueriesContext
from psycopg import errors
from psycopg_pool import PoolTimeout

from jobs.models import Instance
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, one_connection, short_read, short_transaction


@pytest.mark.parametrize(
    "error",
    [
        errors.ReadOnlySqlTransaction,
        errors.IdleInTransactionSessionTimeout,
        errors.AdminShutdown,
        errors.CannotConnectNow,
        errors.QueryCanceled,
        errors.LockNotAvailable,
        PoolTimeout,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ],
)
def test_errors_of_an_unreachable_database_mean_unavailable(error: type[psycopg.Error]) -> None:
    with pytest.raises(DATABASE_UNAVAILABLE), DatabaseWrapper({}).wrap_database_errors:
        raise error


@pytest.mark.parametrize("error", [errors.UniqueViolation, errors.UndefinedTable, errors.StringDataRightTruncation])
def test_errors_of_a_statement_do_not_mean_unavailable(error: type[psycopg.Error]) -> None:
    with pytest.raises(Exception) as caught, DatabaseWrapper({}).wrap_database_errors:  # noqa: PT011 - the next line looks
        raise error

    assert not isinstance(caught.value, DATABASE_UNAVAILABLE)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("block", [short_read, short_transaction])
def test_a_thread_holds_no_connection_after_a_short_block(block: Callable[[], AbstractContextManager[None]]) -> None:
    held: list[bool] = []

    def use() -> None:
        with block(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            held.append(connection.connection is not None)
        held.append(connection.connection is not None)
        connection.close()

    thread = Thread(target=use)
    thread.start()
    thread.join()
    assert held == [True, False]


@pytest.mark.django_db(transaction=True)
def test_short_transactions_inside_another_are_one() -> None:
    # Given a transaction with two parts, of which the second fails
    def change() -> None:
        with short_transaction():
            Instance.objects.create(name="first")
        with short_transaction():
            Instance.objects.create(name="second")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), short_transaction():
        change()

    # I expect neither to be committed
    assert not Instance.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_short_transactions_inside_another_need_no_savepoint() -> None:
    with CaptureQueriesContext(connection) as statements, short_transaction(), short_transaction():
        Instance.objects.create(name="one")

    assert not [query for query in statements if "SAVEPOINT" in query["sql"]]
    assert Instance.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_several_short_transactions_use_one_connection() -> None:
    with one_connection():
        with short_transaction():
            Instance.objects.exists()
        used = connection.connection
        with short_read():
            Instance.objects.exists()
        assert connection.connection is used
    assert connection.connection is None
