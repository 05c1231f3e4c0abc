"""An origin gets a row of its own: its breaker, its throttle and the queue of streams for it."""

import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.utils import timezone


def make_destinations(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    subscriptions = apps.get_model("callbacks", "Subscription").objects
    destinations = apps.get_model("callbacks", "Destination").objects
    for origin in list(subscriptions.values_list("origin", flat=True).distinct()):
        destination = destinations.create(origin=origin, used_at=timezone.now())
        subscriptions.filter(origin=origin).update(destination=destination)


class Migration(migrations.Migration):
    dependencies = [("callbacks", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Destination",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("origin", models.TextField(help_text="Scheme, host and port.", unique=True)),
                ("used_at", models.DateTimeField(help_text="When a stream last began to send there, to the hour.")),
                ("paused", models.BooleanField(default=False, help_text="Whether an operator has paused it: nothing is sent.")),
                (
                    "failures",
                    models.PositiveIntegerField(default=0, help_text="Attempts in a row without an answer or with a 5xx."),
                ),
                (
                    "openings",
                    models.PositiveIntegerField(
                        default=0, help_text="How often the breaker has opened since the last good answer."
                    ),
                ),
                (
                    "open_until",
                    models.DateTimeField(help_text="When the breaker becomes half open; null while it is closed.", null=True),
                ),
                ("probe_token", models.UUIDField(help_text="The delivery that is the probe.", null=True)),
                ("probe_until", models.DateTimeField(help_text="When the probe counts as dead.", null=True)),
                ("throttles", models.PositiveIntegerField(default=0, help_text="429 answers in a row.")),
                ("throttled_until", models.DateTimeField(null=True)),
                (
                    "window",
                    models.PositiveSmallIntegerField(default=1, help_text="How many deliveries at once it may have."),
                ),
                ("waiting", models.BooleanField(default=False, help_text="Whether streams may be waiting for it.")),
                (
                    "revive_since",
                    models.DateTimeField(help_text="Events that died at this time or later are to be redelivered …", null=True),
                ),
                (
                    "revive_until",
                    models.DateTimeField(
                        help_text="… if they died at this time or earlier. Null if none is requested.", null=True
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(condition=models.Q(("waiting", True)), fields=["open_until"], name="destination_waiting_idx"),
                    models.Index(
                        condition=models.Q(("revive_until__isnull", False)), fields=["id"], name="destination_revive_idx"
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="subscription",
            name="destination",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="subscriptions",
                to="callbacks.destination",
            ),
        ),
        migrations.RunPython(make_destinations, migrations.RunPython.noop),
    ]
