from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0004_unended_lines"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="refused_starts",
            field=models.PositiveIntegerField(
                db_default=0, default=0, help_text="How often it failed to start for reasons that may not be its fault."
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="next_start_at",
            field=models.DateTimeField(
                help_text="When the node may try another job, if every start fails. Empty if it accepts jobs.", null=True
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="start_pause",
            field=models.PositiveIntegerField(help_text="Seconds between a failed start and the next try.", null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="start_probe",
            field=models.UUIDField(help_text="The job that tests whether starts work again.", null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="start_refusal",
            field=models.TextField(
                blank=True, db_default="", default="", help_text="The engine's message for the failed starts."
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="start_refused",
            field=models.JSONField(help_text="The last failed starts in a row: image and job of each.", null=True),
        ),
    ]
