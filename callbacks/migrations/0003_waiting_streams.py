"""Streams that wait for their destination, and indexes for the dead."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("callbacks", "0002_destinations")]

    operations = [
        migrations.RemoveIndex(model_name="event", name="event_oldest_pending_idx"),
        migrations.AlterModelOptions(name="attempt", options={"ordering": ["pk"]}),
        migrations.AlterField(
            model_name="subscription",
            name="destination",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="subscriptions",
                to="callbacks.destination",
            ),
        ),
        migrations.RemoveField(model_name="subscription", name="origin"),
        migrations.RemoveField(model_name="subscription", name="revision"),
        migrations.AddField(
            model_name="subscription",
            name="sending",
            field=models.UUIDField(help_text="The event that is being sent.", null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="sending_since",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="waiting_since",
            field=models.DateTimeField(help_text="Its position in the queue for its destination.", null=True),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(condition=models.Q(("state", "dead")), fields=["subscription", "sequence"], name="event_dead_idx"),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(condition=models.Q(("state", "dead")), fields=["settled_at"], name="event_dead_since_idx"),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(fields=["destination"], name="subscription_destination_idx"),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("lease_token__isnull", False)), fields=["destination"], name="subscription_leased_idx"
            ),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("waiting_since__isnull", False)),
                fields=["destination", "waiting_since"],
                name="subscription_waiting_idx",
            ),
        ),
    ]
