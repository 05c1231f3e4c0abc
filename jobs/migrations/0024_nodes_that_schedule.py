"""Nodes that are clusters: they place jobs themselves, and have a largest host."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0023_log_position"),
    ]

    operations = [
        migrations.AddField(
            model_name="node",
            name="schedules",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Whether it is a cluster that places jobs itself: what they reserve is counted, and not limited.",
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="largest_memory_mib",
            field=models.PositiveIntegerField(
                help_text="If the node schedules: the most memory that one job can have. Else empty.",
                null=True,
                verbose_name="largest job (MiB)",
            ),
        ),
    ]
