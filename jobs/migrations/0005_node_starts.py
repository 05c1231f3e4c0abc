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
                db_default=0, default=0, help_text="How often it failed to start for reasons that may not be its own."
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="next_start_at",
            field=models.DateTimeField(
                help_text="Every start fails there: when it takes one job more, to try. Empty where it takes jobs.", null=True
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="start_pause",
            field=models.PositiveIntegerField(help_text="Seconds between one start that fails and the next try.", null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="start_probe",
            field=models.UUIDField(help_text="The job that is to show whether starts work again.", null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="start_refusal",
            field=models.TextField(blank=True, db_default="", default="", help_text="In what words starts fail there in a row."),
        ),
        migrations.AddField(
            model_name="node",
            name="start_refused",
            field=models.JSONField(help_text="The last of these: image and job of each.", null=True),
        ),
    ]
