"""Makes ids unique within a namespace, while the table is in use, and indexes the jobs of each namespace."""

from django.db import migrations, models

from orchestrator_site.base.db.indexes import AddIndexWhileInUse, AddUniqueConstraintWhileInUse


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("jobs", "0018_namespaces"),
    ]

    operations = [
        AddUniqueConstraintWhileInUse(
            model_name="job",
            constraint=models.UniqueConstraint(fields=("namespace", "id"), name="job_id_in_namespace"),
        ),
        AddIndexWhileInUse(
            model_name="job",
            index=models.Index(fields=["namespace", "-uuid"], name="job_namespace_idx"),
        ),
    ]
