"""Flags for jobs that have no inputs or outputs, so that none are looked for. Jobs of earlier releases may have some."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0009_older_meta_entries"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="has_inputs",
            field=models.BooleanField(db_default=True, default=True, help_text="Whether it may have inputs of any type."),
        ),
        migrations.AddField(
            model_name="job",
            name="has_outputs",
            field=models.BooleanField(db_default=True, default=True, help_text="Whether it may have outputs of any type."),
        ),
    ]
