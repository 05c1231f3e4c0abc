"""Statements in SQL for what is done so often that building them with Django's ORM would cost more than executing them.

PostgreSQL and SQLite execute the same text, except for how they spell the time.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from itertools import chain
from typing import Any, Final, TypeVar

from django.db import connection, models, transaction
from django.db.models import Model

from orchestrator_site.base.db.postgresql import cursor_for_large_values

Row = TypeVar("Row", bound=Model)
Statement = tuple[str, Sequence[Any]]  # its text and parameters

# Fields whose values psycopg adapts itself. Those of subclasses may be encrypted, for example.
_PLAIN: Final = frozenset(
    {
        models.BigAutoField,
        models.BooleanField,
        models.CharField,
        models.DateTimeField,
        models.ForeignKey,
        models.IntegerField,
        models.PositiveBigIntegerField,
        models.PositiveIntegerField,
        models.PositiveSmallIntegerField,
        models.TextField,
        models.UUIDField,
    }
)

_SPELLINGS: Final = {
    "postgresql": {
        "now": "STATEMENT_TIMESTAMP()",
        "later": "STATEMENT_TIMESTAMP() + %s * INTERVAL '1 second'",
        "minute": "CAST(FLOOR(EXTRACT(EPOCH FROM STATEMENT_TIMESTAMP()) / 60) AS INTEGER)",
        "lock": "FOR NO KEY UPDATE",
        "skip_locked": "FOR NO KEY UPDATE SKIP LOCKED",
        "key_share": "FOR KEY SHARE SKIP LOCKED",
    },
    "sqlite": {
        "now": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')",
        "later": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', %s || ' seconds')",
        "minute": "CAST(STRFTIME('%%s', 'NOW') AS INTEGER) / 60",
        "lock": "",  # a transaction locks the whole database
        "skip_locked": "",
        "key_share": "",
    },
}


@cache
def sql(template: str) -> str:
    """Replace `{now}` by the time, `{later}` by the time some seconds later, and the others by a lock of a SELECT.

    `{minute}` is the time as a number of minutes since 1970. `{lock}` and `{skip_locked}` are for changing rows; `{key_share}`
    only keeps others from locking them as if to delete them. The last two leave out rows with a lock that conflicts.
    """
    return template.format(**_SPELLINGS[connection.vendor])


def placeholders(values: Collection[object]) -> str:
    """Return a placeholder for each value, separated by commas."""
    return ", ".join(["%s"] * len(values))


def db_value(model: type[Model], field: str, value: Any) -> Any:
    """Return a value as the database stores it in this field."""
    return _field(model, field).get_db_prep_save(value, connection)


def as_time(value: Any) -> datetime:
    """Return a time that the database computed. SQLite answers with text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value).replace(tzinfo=UTC)


def select_rows(
    model: type[Row], condition: str, parameters: Sequence[Any], *, omit: tuple[str, ...] = (), large: bool = False
) -> list[Row]:
    """Return the rows that satisfy a condition, which may end with an order, a limit and a lock, without the omitted fields.

    `large`: some values have many kilobytes (see `cursor_for_large_values`). It is not for models with JSON fields.

    Each has the database's time as `now`. `Manager.raw` does the same, but takes far longer to prepare it.
    """
    select, names, converters = _selection(model, omit)
    with cursor_for_large_values(connection) if large else connection.cursor() as cursor:
        cursor.execute(f"{select} {condition}", parameters)
        found = [list(values) for values in cursor.fetchall()]
    for index, field, convert in converters:
        for values in found:
            values[index] = convert(values[index], field, connection)
    rows = []
    for *values, now in found:
        row = model.from_db(connection.alias, names, values)
        row.now = as_time(now)  # type: ignore[attr-defined]
        rows.append(row)
    return rows


@cache
def _selection(model: type[Model], omit: tuple[str, ...]) -> tuple[str, list[str], list[tuple[int, Any, Any]]]:
    """Return the start of a SELECT, the attributes for its columns, and the conversions that they need."""
    fields = [field for field in model._meta.concrete_fields if field.name not in omit]
    columns = [field.get_col(model._meta.db_table) for field in fields]
    names = ", ".join(_column(model, field.name) for field in fields)
    converters = [
        (index, column, convert)
        for index, column in enumerate(columns)
        for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
    ]
    return sql(f"SELECT {names}, {{now}} FROM {_table(model)}"), [field.attname for field in fields], converters  # noqa: S608 - names of columns


def execute_together(statements: Sequence[Statement]) -> None:
    """Execute statements that return nothing in one transaction, and on PostgreSQL in one message.

    PostgreSQL executes a message as a transaction: there is one round trip instead of one for each statement, BEGIN and COMMIT.
    """
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        texts, parameters = zip(*statements, strict=True)
        _execute(("; ".join(texts), list(chain.from_iterable(parameters))))
    else:
        with transaction.atomic():
            for statement in statements:
                _execute(statement)


def insertion(model: type[Model], rows: Sequence[Model], fields: tuple[str, ...]) -> Statement:
    """Return the statement that inserts rows. Fields that are not named must have a default in the database, as the key has."""
    return _insert(model, fields, len(rows)), _parameters(model, rows, fields)


def insert_rows(model: type[Model], rows: Sequence[Model], fields: tuple[str, ...], *, large: bool = False) -> None:
    """Insert rows as `insertion` says.

    `large`: some values have many kilobytes (see `cursor_for_large_values`).
    """
    if rows:
        _execute(insertion(model, rows, fields), large=large)


def update_rows(model: type[Model], rows: Sequence[Any], fields: tuple[str, ...]) -> None:
    """Store these attributes of `rows` in the rows with their keys, by one statement.

    Django's `bulk_update` makes a CASE with all keys for each field, which takes far longer.
    """
    if rows:
        _execute((update_text(model, fields, len(rows)), _parameters(model, rows, (model._meta.pk.name, *fields))))


def _execute(statement: Statement, *, large: bool = False) -> None:
    with cursor_for_large_values(connection) if large else connection.cursor() as cursor:
        cursor.execute(*statement)


def _parameters(model: type[Model], rows: Sequence[Any], fields: tuple[str, ...]) -> list[Any]:
    """Return the values of these fields as the database stores them, row by row."""
    conversions = _conversions(model, fields)
    return [
        convert(value) if convert is not None else value
        for row in rows
        for value, convert in ((getattr(row, name), convert) for name, convert in conversions)
    ]


@cache
def _conversions(model: type[Model], fields: tuple[str, ...]) -> list[tuple[str, Callable[[Any], Any] | None]]:
    """Return the attribute of each field, and what makes its value one that the database stores."""
    return [(_field(model, field).attname, _conversion(model, field)) for field in fields]


def _conversion(model: type[Model], name: str) -> Callable[[Any], Any] | None:
    """Return what makes a value one that the database stores; None if psycopg does."""
    field = _field(model, name)
    if connection.vendor == "postgresql" and type(field) in _PLAIN:
        return None
    return partial(field.get_db_prep_save, connection=connection)


@lru_cache(maxsize=256)
def _insert(model: type[Model], fields: tuple[str, ...], count: int) -> str:
    columns = ", ".join(_column(model, field) for field in fields)
    return f"INSERT INTO {_table(model)} ({columns}) {_values(fields, count)}"


@lru_cache(maxsize=256)
def update_text(model: type[Model], fields: tuple[str, ...], count: int) -> str:
    """Return the statement that changes these fields of `count` rows. Its parameters are, row by row, the key and the values."""
    key = model._meta.pk.name
    changes = ", ".join(
        f"{_column(model, field)} = {_cast(model, field, f'new.column{number}')}" for number, field in enumerate(fields, 2)
    )
    return (
        f"UPDATE {_table(model)} SET {changes} FROM ({_values((key, *fields), count)}) AS new "  # noqa: S608 - names of columns
        f"WHERE {_table(model)}.{_column(model, key)} = {_cast(model, key, 'new.column1')}"
    )


def _values(fields: tuple[str, ...], count: int) -> str:
    return f"VALUES {', '.join([f'({placeholders(fields)})'] * count)}"


def _table(model: type[Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _column(model: type[Model], field: str) -> str:
    column: str = _field(model, field).column
    return connection.ops.quote_name(column)


def _field(model: type[Model], field: str) -> Any:
    return model._meta.get_field(field)


def _cast(model: type[Model], field: str, expression: str) -> str:
    """Give a column of VALUES its type: PostgreSQL takes one that is NULL in all rows for text. SQLite has no such types."""
    if connection.vendor == "sqlite":
        return expression
    return f"CAST({expression} AS {_field(model, field).rel_db_type(connection)})"
