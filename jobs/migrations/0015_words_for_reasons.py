"""The names of the reasons in forms; the database does not know them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0014_times_before_the_start"),
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
