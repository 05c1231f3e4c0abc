"""Migrations that add an index to a table in use."""

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from callbacks.models import Destination
from jobs.models import Job
from orchestrator_site.base.db.indexes import AddIndexWhileInUse, AddUniqueConstraintWhileInUse

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


def test_a_unique_constraint_is_added_beside_writes_also_after_an_interrupted_attempt() -> None:
    # Given the constraint, or only its index, as an interrupted attempt leaves them
    [constraint] = Job._meta.constraints
    state = MigrationLoader(connection).project_state()
    operation = AddUniqueConstraintWhileInUse("Job", constraint)
    for leave in (
        "SELECT 1",
        f"ALTER TABLE jobs_job DROP CONSTRAINT {constraint.name}; CREATE INDEX {constraint.name} ON jobs_job (id)",
    ):
        with connection.cursor() as cursor:
            cursor.execute(leave)

        # When it is added
        with connection.schema_editor(atomic=False) as editor:
            operation.database_forwards("jobs", editor, state, state)

        # I expect it to be there, of the right columns
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, "jobs_job")[constraint.name]
        assert (found["columns"], found["unique"]) == (["namespace", "id"], True)
    with connection.schema_editor(atomic=False, collect_sql=True) as editor:
        operation.database_forwards("jobs", editor, state, state)
    building = [statement for statement in editor.collected_sql if "CREATE" in statement]
    assert all("CONCURRENTLY" in statement for statement in building)
