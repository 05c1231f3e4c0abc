"""The namespace of a job. Jobs that exist, and those that an older release creates meanwhile, are in `default`."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0017_node_samples"),
        ("access", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="namespace",
            field=models.CharField(db_default="default", default="default", max_length=63),
        ),
    ]
