from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0012_usage"),
    ]

    operations = [
        migrations.AddField(
            model_name="node",
            name="drained",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Whether an operator has drained it: it takes no new jobs."
            ),
        ),
    ]
