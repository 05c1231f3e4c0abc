"""Tells PostgreSQL of which columns to gather no statistics, and how to read lists by these."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL


def gather_none(schema_editor: Any, table: str, column: str) -> None:
    """Let PostgreSQL suppose of any value of this column that few of many rows have it. Do nothing with another database.

    Statistics are gathered only after a tenth of a table has changed. Until then a new value looks as if no row had it, and an
    index that leads to all of its rows as good as one that leads to one. Call this in the transaction that adds the column: what
    was gathered before stays.
    """
    if schema_editor.connection.vendor == "postgresql":
        names = map(schema_editor.quote_name, (table, column))
        schema_editor.execute("ALTER TABLE {} ALTER COLUMN {} SET STATISTICS 0".format(*names))


@contextmanager
def in_index_order() -> Iterator[None]:
    """Run the block in a transaction whose queries PostgreSQL reads in the order of an index, and does not sort.

    Of a column without statistics it supposes that few rows have a value, and would read all of these to sort them.
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off")
        yield


def first_in_index_order(rows: QuerySet[Any], column: str, limit: int, offset: int = 0) -> RawSQL:
    """Return a subquery for a column of `rows`, newest first by this column, which PostgreSQL reads in the order of an index.

    PostgreSQL supposes that few rows have a value of a column without statistics. If it knew that `limit` is larger, it would
    read and sort all of them. So the limit is the answer to a SELECT, which it does not know: it supposes a tenth of the rows.
    """
    text, parameters = rows.order_by(f"-{column}").values(column).query.get_compiler(connection=connection).as_sql()
    name = connection.ops.quote_name(rows.model._meta.get_field(column).column)
    first = f"SELECT {name} FROM ({text} LIMIT (SELECT %s)) AS first_rows ORDER BY {name} DESC LIMIT %s OFFSET %s"  # noqa: S608 - names of columns
    return RawSQL(first, [*parameters, limit + offset, limit, offset])  # noqa: S611 - see above
