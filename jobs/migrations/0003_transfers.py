from typing import Any

from django.db import migrations, models
from django.db.models import Exists, OuterRef


def mark_transfers(apps: Any, _: Any) -> None:
    """Say of unfinished jobs what they have to transfer; of others nobody asks."""
    Job = apps.get_model("jobs", "Job")
    for column, model, kind in (("has_downloads", "Input", "download"), ("has_uploads", "Output", "upload")):
        transfers = apps.get_model("jobs", model).objects.filter(job=OuterRef("pk"), type=kind)
        Job.objects.filter(Exists(transfers), completed_at=None).update(**{column: True})


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0002_dropped_lines"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="has_downloads",
            field=models.BooleanField(db_default=False, default=False, help_text="Whether it has inputs to download."),
        ),
        migrations.AddField(
            model_name="job",
            name="has_uploads",
            field=models.BooleanField(db_default=False, default=False, help_text="Whether it has outputs to upload."),
        ),
        migrations.AddField(
            model_name="job",
            name="outputs_cancelled_at",
            field=models.DateTimeField(help_text="When its outputs were cancelled after it had been decided.", null=True),
        ),
        migrations.AddField(
            model_name="worker",
            name="takes_downloads",
            field=models.BooleanField(
                db_default=True, default=True, help_text="Whether it could claim jobs with downloads at its last heartbeat."
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="takes_uploads",
            field=models.BooleanField(
                db_default=True, default=True, help_text="Whether it could claim jobs with uploads at its last heartbeat."
            ),
        ),
        migrations.RunPython(mark_transfers, migrations.RunPython.noop),
    ]
