"""Labels of fields in the admin. No column changes."""

import django.db.models.deletion
from django.db import migrations, models

import jobs.models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0006_owner_deaths"),
    ]

    operations = [
        migrations.AlterField(
            model_name="input",
            name="name",
            field=models.CharField(help_text="The `id` that the client gave.", max_length=128, verbose_name="ID"),
        ),
        migrations.AlterField(
            model_name="job",
            name="cpu_millis",
            field=models.PositiveIntegerField(verbose_name="CPU (thousandths of a core)"),
        ),
        migrations.AlterField(
            model_name="job",
            name="exit_code",
            field=models.IntegerField(null=True, verbose_name="exit code"),
        ),
        migrations.AlterField(
            model_name="job",
            name="exited_at",
            field=models.DateTimeField(
                help_text="When its log ended and its exit event was created.", null=True, verbose_name="log ended at"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="id",
            field=models.CharField(max_length=128, unique=True, verbose_name="ID"),
        ),
        migrations.AlterField(
            model_name="job",
            name="log_bytes",
            field=models.PositiveBigIntegerField(default=0, verbose_name="stored log (bytes)"),
        ),
        migrations.AlterField(
            model_name="job",
            name="log_dropped",
            field=models.PositiveBigIntegerField(
                default=0, help_text="Lost lines and gaps that no event has reported yet.", verbose_name="lost lines to report"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="log_full",
            field=models.BooleanField(
                default=False,
                help_text="Whether LOG_LIMIT is reached and the marker is stored.",
                verbose_name="log limit reached",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="memory_mib",
            field=models.PositiveIntegerField(verbose_name="memory (MiB)"),
        ),
        migrations.AlterField(
            model_name="job",
            name="owner",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="jobs",
                to="jobs.worker",
                verbose_name="worker",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="owner_deaths",
            field=models.PositiveSmallIntegerField(
                db_default=0,
                default=0,
                help_text="How many owners died in a row while they drove it without progress.",
                verbose_name="worker deaths in a row",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="refused_starts",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="How often it failed to start for reasons that may not be its fault.",
                verbose_name="failed starts",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="reserved",
            field=models.BooleanField(
                default=False, help_text="Whether its cpu and memory are reserved on its node.", verbose_name="resources reserved"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="timeout_seconds",
            field=models.PositiveIntegerField(verbose_name="time-out (seconds)"),
        ),
        migrations.AlterField(
            model_name="job",
            name="uuid",
            field=models.UUIDField(
                default=jobs.models.new_uuid, editable=False, primary_key=True, serialize=False, verbose_name="UUID"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="wants_logs",
            field=models.BooleanField(
                default=False, help_text="Whether its callback receives log events.", verbose_name="sends log events"
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="cpu_millis",
            field=models.PositiveIntegerField(
                default=0,
                help_text="Thousandths of a core: the most that one job can have.",
                verbose_name="largest job (thousandths of a core)",
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="cpu_millis_reserved",
            field=models.BigIntegerField(default=0, verbose_name="reserved CPU (thousandths of a core)"),
        ),
        migrations.AlterField(
            model_name="node",
            name="cpu_millis_total",
            field=models.PositiveIntegerField(
                default=0,
                help_text="Thousandths of a core for all jobs, with overcommit.",
                verbose_name="CPU (thousandths of a core)",
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="engine_id",
            field=models.CharField(blank=True, help_text="The engine's own name.", max_length=255, verbose_name="engine"),
        ),
        migrations.AlterField(
            model_name="node",
            name="memory_mib",
            field=models.PositiveIntegerField(default=0, verbose_name="memory (MiB)"),
        ),
        migrations.AlterField(
            model_name="node",
            name="memory_mib_reserved",
            field=models.BigIntegerField(default=0, verbose_name="reserved memory (MiB)"),
        ),
        migrations.AlterField(
            model_name="node",
            name="network_id",
            field=models.CharField(
                blank=True,
                help_text="The id of the network that jobs run on. It identifies the engine.",
                max_length=128,
                verbose_name="network ID",
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="network_name",
            field=models.CharField(blank=True, max_length=64, verbose_name="network"),
        ),
        migrations.AlterField(
            model_name="node",
            name="next_start_at",
            field=models.DateTimeField(
                help_text="When the node may try another job, if every start fails. Empty if it accepts jobs.",
                null=True,
                verbose_name="next start",
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="seen_at",
            field=models.DateTimeField(
                help_text="The last heartbeat of one of its workers, by the database's clock.",
                null=True,
                verbose_name="last heartbeat",
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="start_pause",
            field=models.PositiveIntegerField(
                help_text="Seconds between a failed start and the next try.", null=True, verbose_name="pause (seconds)"
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="start_probe",
            field=models.UUIDField(
                help_text="The job that tests whether starts work again.", null=True, verbose_name="probing job"
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="start_refusal",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                help_text="The engine's message for the failed starts.",
                verbose_name="error",
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="start_refused",
            field=models.JSONField(
                help_text="The last failed starts in a row: image and job of each.", null=True, verbose_name="recent failures"
            ),
        ),
        migrations.AlterField(
            model_name="node",
            name="warnings",
            field=models.JSONField(
                default=list, help_text="Limits that this engine does not enforce.", verbose_name="limits not enforced"
            ),
        ),
        migrations.AlterField(
            model_name="output",
            name="name",
            field=models.CharField(help_text="The `id` that the client gave.", max_length=128, verbose_name="ID"),
        ),
        migrations.AlterField(
            model_name="worker",
            name="counter",
            field=models.PositiveBigIntegerField(default=0, verbose_name="heartbeats"),
        ),
        migrations.AlterField(
            model_name="worker",
            name="pid",
            field=models.PositiveIntegerField(verbose_name="process ID"),
        ),
        migrations.AlterField(
            model_name="worker",
            name="takes_downloads",
            field=models.BooleanField(
                db_default=True,
                default=True,
                help_text="Whether it could claim jobs with downloads at its last heartbeat.",
                verbose_name="accepts downloads",
            ),
        ),
        migrations.AlterField(
            model_name="worker",
            name="takes_uploads",
            field=models.BooleanField(
                db_default=True,
                default=True,
                help_text="Whether it could claim jobs with uploads at its last heartbeat.",
                verbose_name="accepts uploads",
            ),
        ),
    ]
