"""The namespace of a job. Jobs that exist, and those that an older release creates meanwhile, are in `default`."""

from typing import Any

from django.db import migrations, models

from orchestrator_site.base.db import column_statistics


def gather_no_statistics(_apps: Any, schema_editor: Any) -> None:
    column_statistics.gather_none(schema_editor, "jobs_job", "namespace")


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
        migrations.RunPython(gather_no_statistics, migrations.RunPython.noop),
    ]
