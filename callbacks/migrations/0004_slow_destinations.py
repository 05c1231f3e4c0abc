"""Destinations whose answers are slow."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("callbacks", "0003_waiting_streams"),
    ]

    operations = [
        migrations.AddField(
            model_name="destination",
            name="slowness",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, help_text="Seconds that its slowest answer took. Each quick answer halves them."
            ),
        ),
    ]
