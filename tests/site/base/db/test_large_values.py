"""Large values in PostgreSQL: how they get there, and how they are compressed."""

import pytest
from django.db import connection

from orchestrator_site.base.db.postgresql import cursor_for_large_values, prepared_cursor

pytestmark = pytest.mark.django_db


def postgresql_only() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")


def test_a_large_value_arrives_unchanged() -> None:
    value = bytes(range(256)) * 200

    with cursor_for_large_values(connection) as cursor:
        cursor.execute("SELECT %s", [value])
        assert bytes(cursor.fetchone()[0]) == value
        cursor.execute("SELECT 1, 'text', NULL")
        assert cursor.fetchone() == (1, "text", None)


@pytest.mark.production
def test_a_large_value_is_not_a_part_of_the_statement() -> None:
    postgresql_only()

    with cursor_for_large_values(connection) as cursor:
        cursor.execute("SELECT %s, current_query()", [b"x" * 500])
        assert "$1" in cursor.fetchone()[1]

    # And I expect the next cursor to be of the usual kind
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s, current_query()", [b"x"])
        assert "$1" not in cursor.fetchone()[1]


@pytest.mark.production
def test_a_connection_keeps_no_statement_that_contains_values() -> None:
    postgresql_only()
    # Given a connection on which a statement was prepared
    statement = "SELECT %s::text"
    with prepared_cursor(connection) as cursor:
        cursor.execute(statement, ["prepared"])

    # When it executes statements of the other kinds
    with connection.cursor() as cursor:
        cursor.execute(statement, ["a value in the statement"])
    with cursor_for_large_values(connection) as cursor:
        cursor.execute("SELECT %s::text, 'a value in the statement'", ["beside it"])

    # I expect psycopg to keep the prepared one only
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        assert cursor.fetchall() == [("SELECT $1::text",)]
    assert connection.connection is not None
    kept = connection.connection._prepared
    assert [text for text, _ in (*kept._counts, *kept._names)] == [b"SELECT $1::text"]


@pytest.mark.production
@pytest.mark.parametrize(("table", "column"), [("jobs_logchunk", "lines"), ("callbacks_event", "body")])
def test_logs_and_events_are_compressed_with_lz4(table: str, column: str) -> None:
    postgresql_only()
    statement = "SELECT attcompression FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"

    with connection.cursor() as cursor:
        cursor.execute("SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'")
        if cursor.fetchall() != [(True,)]:
            pytest.skip("this PostgreSQL has no LZ4")
        cursor.execute(statement, [table, column])
        assert cursor.fetchone() == ("l",)
