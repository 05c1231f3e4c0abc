"""Asks by one statement which of several queries would find a row."""

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet


class ExistenceQuery:
    """A statement that is built once: with Django's ORM that takes longer than executing it."""

    def __init__(self, *queries: QuerySet[Any]) -> None:
        parts: list[str] = []
        self._parameters: list[Any] = []
        for query in queries:
            try:
                sql, parameters = query.query.exists().get_compiler(connection=connection).as_sql()
            except EmptyResultSet:
                sql, parameters = "SELECT 1 WHERE 1 = 0", ()
            parts.append(f"EXISTS({sql})")
            self._parameters += parameters
        self._sql = f"SELECT {', '.join(parts)}"

    def ask(self) -> list[bool]:
        """Return for each query whether it finds a row now."""
        with connection.cursor() as cursor:
            cursor.execute(self._sql, self._parameters)
            return [bool(found) for found in cursor.fetchone()]
