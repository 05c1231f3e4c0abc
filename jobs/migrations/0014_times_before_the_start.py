"""Times of the steps before the start of a job, for its time line."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0013_drained_nodes"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="claimed_at",
            field=models.DateTimeField(help_text="When a node reserved its cpu and memory.", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="pulled_at",
            field=models.DateTimeField(help_text="When its image was pulled; null if the node had it.", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="prepared_at",
            field=models.DateTimeField(help_text="When its container was created and its inputs were in place.", null=True),
        ),
    ]
