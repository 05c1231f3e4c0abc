"""Which of the database's errors mean no more than that it is to be asked again."""

import psycopg
import pytest
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg import errors
from psycopg_pool import PoolTimeout

from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE

pytestmark = pytest.mark.stateless


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
def test_a_server_that_does_not_answer_as_it_should_is_unavailable(error: type[psycopg.Error]) -> None:
    with pytest.raises(DATABASE_UNAVAILABLE), DatabaseWrapper({}).wrap_database_errors:
        raise error


@pytest.mark.parametrize("error", [errors.UniqueViolation, errors.UndefinedTable, errors.StringDataRightTruncation])
def test_what_is_wrong_with_the_question_is_not(error: type[psycopg.Error]) -> None:
    with pytest.raises(Exception) as caught, DatabaseWrapper({}).wrap_database_errors:  # noqa: PT011 - the next line looks
        raise error

    assert not isinstance(caught.value, DATABASE_UNAVAILABLE)
