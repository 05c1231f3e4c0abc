"""Tables with many rows on PostgreSQL: what it knows of them, and how many rows are read."""

from collections.abc import Sequence

from django.db import connection

from tests.helpers.waiting import wait_for


def vacuum(tables: Sequence[str], *, analyze: bool = False) -> None:
    """Remove the traces of deleted rows from tables, and optionally look at their values, as PostgreSQL does by itself, later.

    It no longer does so by itself in these tables, which would tell it about new values. Nothing is removed that a transaction
    might still see, so this waits for others to end: PostgreSQL itself has one while it looks at a table.
    """
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        wait_for(lambda: not _transactions(), 60, "the others' transactions to end")
        cursor.execute(f"VACUUM {'ANALYZE' if analyze else ''} {', '.join(tables)}")


def _transactions() -> list[str]:
    """Return the statements of others that keep deleted rows of this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)"
        )
        return [query for (query,) in cursor.fetchall()]


def rows_read(tables: Sequence[str]) -> int:
    """Return how many rows and index entries of tables this transaction has read."""
    oids = ", ".join(f"'{table}'::regclass" for table in tables)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class "
            f"WHERE oid IN ({oids}) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ({oids}))"
        )
        return int(cursor.fetchone()[0])
