"""Tables with many rows on PostgreSQL: what it knows of them, and how many rows are read."""

from collections.abc import Sequence

from django.db import connection


def vacuum(tables: Sequence[str], *, analyze: bool = False) -> None:
    """Remove the traces of deleted rows from tables, and optionally look at their values, as PostgreSQL does by itself, later.

    It no longer does so by itself in these tables: it would learn about new values, and while it looks it keeps deleted rows.
    """
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        cursor.execute(f"VACUUM {'ANALYZE' if analyze else ''} {', '.join(tables)}")


def rows_read(tables: Sequence[str]) -> int:
    """Return how many rows and index entries of tables this transaction has read."""
    oids = ", ".join(f"'{table}'::regclass" for table in tables)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class "
            f"WHERE oid IN ({oids}) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ({oids}))"
        )
        return int(cursor.fetchone()[0])
