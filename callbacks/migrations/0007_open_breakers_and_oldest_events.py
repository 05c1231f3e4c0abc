"""Indexes for the metrics: open breakers, and the event that waits longest. On PostgreSQL they are built while events are stored."""

from django.db import migrations, models

from orchestrator_site.base.db.indexes import AddIndexWhileInUse


class Migration(migrations.Migration):
    atomic = False

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
