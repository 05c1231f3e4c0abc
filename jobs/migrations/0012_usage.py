"""What a job has used."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0011_lines_in_lz4"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="cpu_seconds",
            field=models.FloatField(
                help_text="Of all its processes; empty if unknown.", null=True, verbose_name="CPU time (seconds)"
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="peak_memory_bytes",
            field=models.PositiveBigIntegerField(
                help_text="Of all its processes together, with cached files; empty if unknown.",
                null=True,
                verbose_name="peak memory (bytes)",
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="input_bytes",
            field=models.PositiveBigIntegerField(db_default=0, default=0, verbose_name="inputs (bytes)"),
        ),
        migrations.AddField(
            model_name="job",
            name="output_bytes",
            field=models.PositiveBigIntegerField(db_default=0, default=0, verbose_name="outputs (bytes)"),
        ),
    ]
