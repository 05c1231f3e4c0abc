"""Indexes for the metrics: open breakers, and the event that waits longest. On PostgreSQL they are built while events are stored."""

from typing import Any

from django.db import migrations, models


class AddIndexWhileInUse(migrations.AddIndex):
    """`AddIndex` that does not block writes on PostgreSQL. An index of an attempt that was interrupted is built anew."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(self.index.name)}")
        schema_editor.add_index(model, self.index, concurrently=True)


class Migration(migrations.Migration):
    atomic = False  # PostgreSQL builds an index beside writes only outside a transaction

    dependencies = [
        ("callbacks", "0006_bodies_in_lz4"),
    ]

    operations = [
        AddIndexWhileInUse(
            model_name="destination",
            index=models.Index(condition=models.Q(("open_until__isnull", False)), fields=["id"], name="destination_open_idx"),
        ),
        AddIndexWhileInUse(
            model_name="event",
            index=models.Index(condition=models.Q(("state", "pending")), fields=["expires_at"], name="event_oldest_pending_idx"),
        ),
    ]
