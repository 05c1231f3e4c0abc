"""Indexes of what namespaces use and of the jobs that wait in each."""

from django.db import migrations, models
from django.db.models import Q

from orchestrator_site.base.db.indexes import AddIndexWhileInUse


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("jobs", "0020_ids_in_many_namespaces"),
    ]

    operations = [
        AddIndexWhileInUse(
            model_name="job",
            index=models.Index(
                condition=Q(("node", None), ("status", "accepted")), fields=["namespace", "uuid"], name="job_waiting_idx"
            ),
        ),
        AddIndexWhileInUse(
            model_name="job",
            index=models.Index(
                condition=Q(("reserved", True)), fields=["namespace", "node", "cpu_millis", "memory_mib"], name="job_reserved_idx"
            ),
        ),
        AddIndexWhileInUse(
            model_name="job",
            index=models.Index(
                condition=Q(("status__in", ["accepted", "running"])), fields=["namespace"], name="job_undecided_idx"
            ),
        ),
    ]
