"""The id of the request that created a job, which the lines of its workers name."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0015_words_for_reasons"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="request_id",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="The request that created it, in the log.",
                max_length=128,
                verbose_name="request ID",
            ),
        ),
    ]
