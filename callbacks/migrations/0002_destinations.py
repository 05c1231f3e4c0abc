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
                ("used_at", models.DateTimeField(help_text="When a stream began to go there, to the hour.")),
                ("paused", models.BooleanField(default=False, help_text="By an operator: nothing is sent.")),
                (
                    "failures",
                    models.PositiveIntegerField(default=0, help_text="Tries in a row without an answer, or with a 5xx."),
                ),
                (
                    "openings",
                    models.PositiveIntegerField(
                        default=0, help_text="How often the breaker has opened since it last answered well."
                    ),
                ),
                (
                    "open_until",
                    models.DateTimeField(help_text="Then one probe at a time may go; empty: the breaker is closed.", null=True),
                ),
                ("probe_token", models.UUIDField(help_text="The delivery that is the probe.", null=True)),
                ("probe_until", models.DateTimeField(help_text="Then that probe counts as dead.", null=True)),
                ("throttles", models.PositiveIntegerField(default=0, help_text="Answers in a row that asked to slow down.")),
                ("throttled_until", models.DateTimeField(null=True)),
                (
                    "window",
                    models.PositiveSmallIntegerField(default=1, help_text="How many deliveries it is trusted with at once."),
                ),
                ("waiting", models.BooleanField(default=False, help_text="Streams may wait for it.")),
                (
                    "revive_since",
                    models.DateTimeField(help_text="An operator wants what died from here on to be sent again, …", null=True),
                ),
                (
                    "revive_until",
                    models.DateTimeField(help_text="… up to here; null: nothing (more) is to be done.", null=True),
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
