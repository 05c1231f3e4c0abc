"""What nodes had reserved, for the charts of the admin."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0016_request_ids"),
    ]

    operations = [
        migrations.CreateModel(
            name="NodeSample",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey("minute", "node", blank=True, editable=False, primary_key=True, serialize=False),
                ),
                ("minute", models.PositiveIntegerField(help_text="Since 1970, by the database's clock.")),
                ("cpu_millis_total", models.PositiveIntegerField()),
                ("cpu_millis_reserved", models.BigIntegerField()),
                ("memory_mib", models.PositiveIntegerField()),
                ("memory_mib_reserved", models.BigIntegerField()),
                (
                    "node",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="jobs.node",
                    ),
                ),
            ],
            options={
                "default_permissions": (),
            },
        ),
    ]
