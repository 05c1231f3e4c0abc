"""Indexes for the admin: of the destinations to which nothing is sent now, and of the jobs that streams belong to."""

from django.db import migrations, models

from orchestrator_site.base.db.indexes import AddIndexWhileInUse


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("callbacks", "0007_open_breakers_and_oldest_events"),
    ]

    operations = [
        AddIndexWhileInUse(
            model_name="destination",
            index=models.Index(
                condition=models.Q(("throttled_until__isnull", False)),
                fields=["throttled_until"],
                name="destination_throttled_idx",
            ),
        ),
        AddIndexWhileInUse(
            model_name="destination",
            index=models.Index(condition=models.Q(("paused", True)), fields=["id"], name="destination_paused_idx"),
        ),
        AddIndexWhileInUse(
            model_name="subscription",
            index=models.Index(fields=["subject"], name="subscription_subject_idx"),
        ),
    ]
