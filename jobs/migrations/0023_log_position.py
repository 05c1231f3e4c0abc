"""How many of the last stored frames of a log have the same time, for engines that find a place in a log by its time."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0022_disk_reason"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="log_last_count",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="How many of the last stored frames have the same timestamp.",
            ),
        ),
    ]
