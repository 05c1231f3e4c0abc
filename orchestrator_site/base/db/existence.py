"""Asks by one statement which of several queries would find a row."""

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet


class ExistenceQuery:
    """A statement that is built once: with Django's ORM that takes longer than executing it."""

    def __init__(self, *queries: QuerySet[Any], first: QuerySet[Any] | None = None) -> None:
        """`first` selects one column, and its value in the first row is asked for as well."""
        parts: list[str] = []
        self._parameters: list[Any] = []
        for query in queries:
            try:
                sql, parameters = query.query.exists().get_compiler(connection=connection).as_sql()
            except EmptyResultSet:
                sql, parameters = "SELECT 1 WHERE 1 = 0", ()
            parts.append(f"EXISTS({sql})")
            self._parameters += parameters
        if first is not None:
            sql, parameters = first[:1].query.get_compiler(connection=connection).as_sql()
            parts.append(f"({sql})")
            self._parameters += parameters
        self._sql = f"SELECT {', '.join(parts)}"

    def ask(self) -> list[bool]:
        """Return for each query whether it finds a row now."""
        return [bool(found) for found in self._ask()]

    def ask_with_first(self) -> tuple[list[bool], Any]:
        """Return the same, and what the database has for the value in the first row of `first`, None if there is no row."""
        *found, value = self._ask()
        return [bool(one) for one in found], value

    def _ask(self) -> Sequence[Any]:
        with connection.cursor() as cursor:
            cursor.execute(self._sql, self._parameters)
            row: Sequence[Any] = cursor.fetchone()
            return row
