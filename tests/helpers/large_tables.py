"""Tables with many rows on PostgreSQL: what it knows of them, and how many rows are read."""

from collections.abc import Sequence

from django.db import connection

from tests.helpers.waiting import wait_for


def vacuum(tables: Sequence[str], *, analyze: bool = False) -> None:
    """Remove the traces of deleted rows from tables, and optionally look at their values, as PostgreSQL does by itself, later.

    It no longer does so by itself in these tables, which would tell it about new values. A row is kept while a transaction might
    still see it, so this tries again until all are gone. INDEX_CLEANUP: else VACUUM leaves a few rows where they are, for the
    sake of its time, and ANALYZE counts them.
    """
    names = ", ".join(tables)
    options = "INDEX_CLEANUP ON, ANALYZE" if analyze else "INDEX_CLEANUP ON"
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")

        def is_clean() -> bool:
            cursor.execute("SELECT pg_stat_force_next_flush()")  # so that the next count is that of VACUUM
            cursor.execute(f"VACUUM ({options}) {names}")
            cursor.execute("SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname = ANY (%s)", [list(tables)])
            return not cursor.fetchone()[0]

        wait_for(is_clean, 60, "deleted rows to be removed")


def rows_read(tables: Sequence[str]) -> int:
    """Return how many rows and index entries of tables this transaction has read."""
    oids = ", ".join(f"'{table}'::regclass" for table in tables)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class "
            f"WHERE oid IN ({oids}) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ({oids}))"
        )
        return int(cursor.fetchone()[0])
