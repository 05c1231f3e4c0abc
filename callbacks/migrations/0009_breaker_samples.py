"""How many breakers were open, for the charts of the admin."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("callbacks", "0008_operators_indexes"),
    ]

    operations = [
        migrations.CreateModel(
            name="BreakerSample",
            fields=[
                (
                    "minute",
                    models.PositiveIntegerField(
                        help_text="Since 1970, by the database's clock.", primary_key=True, serialize=False
                    ),
                ),
                ("open_breakers", models.PositiveIntegerField(help_text="The most that were open at once.")),
            ],
            options={
                "default_permissions": (),
            },
        ),
    ]
