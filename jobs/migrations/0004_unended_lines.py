from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0003_transfers"),
    ]

    operations = [
        migrations.AddField(
            model_name="logchunk",
            name="unended",
            field=models.JSONField(help_text="Lines that do not end in a line feed; null if all do.", null=True),
        ),
    ]
