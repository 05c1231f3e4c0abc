"""A reason for jobs that have written too much; the database does not know the names."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0021_waiting_and_reserved_jobs"),
    ]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("exit_code", "Exit code"),
                    ("oom", "Out of memory"),
                    ("timeout", "Time-out"),
                    ("disk", "Disk limit"),
                    ("cancelled", "Cancelled"),
                    ("image_pull", "Image not pulled"),
                    ("input_failed", "Input failed"),
                    ("start_failed", "Start failed"),
                    ("engine_lost", "Engine lost"),
                ],
                max_length=16,
            ),
        ),
    ]
