from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0011_lines_in_lz4"),
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
