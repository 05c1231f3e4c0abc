"""How much a destination gets and an owner of streams sends."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("callbacks", "0009_breaker_samples"),
    ]

    operations = [
        migrations.CreateModel(
            name="Owner",
            fields=[
                ("name", models.CharField(max_length=128, primary_key=True, serialize=False)),
                (
                    "limited_until",
                    models.DateTimeField(help_text="Nothing is sent before: as much as may be was sent.", null=True),
                ),
            ],
            options={"default_permissions": ()},
        ),
        migrations.AddField(
            model_name="destination",
            name="limited_until",
            field=models.DateTimeField(help_text="Nothing is sent before: it has got as much as it may.", null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="owner",
            field=models.CharField(
                db_default="", default="", help_text="Its events count towards this one's limit.", max_length=128
            ),
        ),
    ]
