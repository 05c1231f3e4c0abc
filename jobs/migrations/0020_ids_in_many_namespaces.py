"""Allows an id in several namespaces, now that it is unique in each."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0019_ids_of_namespaces"),
    ]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="id",
            field=models.CharField(help_text="Unique in its namespace.", max_length=128, verbose_name="ID"),
        ),
    ]
