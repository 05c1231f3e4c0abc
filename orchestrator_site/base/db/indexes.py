"""Migrations that add an index or a unique constraint to a table in use."""

from typing import Any

from django.db import migrations, transaction


class AddIndexWhileInUse(migrations.AddIndex):
    """`AddIndex` that does not block writes on PostgreSQL. An index of an attempt that was interrupted is built anew.

    The migration must not be `atomic`: PostgreSQL builds an index beside writes only outside a transaction.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        name = schema_editor.quote_name(self.index.name)
        if schema_editor.connection.vendor != "postgresql":
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}")
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        schema_editor.add_index(model, self.index, concurrently=True)


class AddUniqueConstraintWhileInUse(migrations.AddConstraint):
    """`AddConstraint` for unique columns, with the same promises: its index is built first, beside writes."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            with transaction.atomic(schema_editor.connection.alias):  # SQLite makes the table anew
                super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        options = to_state.apps.get_model(app_label, self.model_name)._meta
        constraint: Any = self.constraint
        name, table = schema_editor.quote_name(constraint.name), schema_editor.quote_name(options.db_table)
        columns = ", ".join(schema_editor.quote_name(options.get_field(field).column) for field in constraint.fields)
        schema_editor.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        schema_editor.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} ({columns})")
        schema_editor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")
