"""Migrations that add an index to a table in use."""

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from callbacks.models import Destination
from orchestrator_site.base.db.indexes import AddIndexWhileInUse

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no writers beside a migration"),
]
NAME = "destination_paused_idx"


def definition() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", [NAME])
        return str(cursor.fetchone()[0])


def test_an_index_of_an_interrupted_attempt_is_built_anew_beside_writes() -> None:
    # Given another index with that name, as an interrupted attempt may leave a useless one
    expected = definition()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {NAME}")
        cursor.execute(f"CREATE INDEX {NAME} ON callbacks_destination (origin)")

    # When the index is added
    index = next(index for index in Destination._meta.indexes if index.name == NAME)
    state = MigrationLoader(connection).project_state()
    with connection.schema_editor(atomic=False) as editor:
        AddIndexWhileInUse("Destination", index).database_forwards("callbacks", editor, state, state)

    # I expect the right one
    assert definition() == expected


def test_writes_are_not_blocked() -> None:
    index = next(index for index in Destination._meta.indexes if index.name == NAME)
    state = MigrationLoader(connection).project_state()
    with connection.schema_editor(atomic=False, collect_sql=True) as editor:
        AddIndexWhileInUse("Destination", index).database_forwards("callbacks", editor, state, state)
    assert all("CONCURRENTLY" in statement for statement in editor.collected_sql)
