"""`UPDATE … RETURNING`, which both databases have and Django's ORM has not: a change and the changed row in one statement."""

from typing import Any, TypeVar

from django.db import connections
from django.db.models import Model, QuerySet
from django.db.models.sql import UpdateQuery

_Row = TypeVar("_Row", bound=Model)


def update_returning(rows: QuerySet[_Row], **values: Any) -> list[_Row]:
    """Change `rows` as `QuerySet.update` does, and return them as they are now. They may not span tables."""
    connection = connections[rows.db]
    query: Any = rows.query.chain(UpdateQuery)
    query.add_update_values(values)
    compiler = query.get_compiler(connection=connection)
    statement, parameters = compiler.as_sql()
    fields = rows.model._meta.concrete_fields
    columns = [field.get_col(rows.model._meta.db_table) for field in fields]
    returning = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} RETURNING {returning}", parameters)
        found = cursor.fetchall()  # all of them: SQLite ends the statement only then
    converted = compiler.apply_converters(found, compiler.get_converters(columns))
    names = [field.attname for field in fields]
    return [rows.model.from_db(rows.db, names, list(row)) for row in converted]
