"""The rows that are the truth: jobs, what goes in and out of them, their logs, and who runs them where."""

from datetime import UTC, datetime
from uuid import UUID

from django.db import models
from django.db.models import Q
from uuid_utils.compat import uuid7

from jobs.engine.protocol import PullPolicy
from jobs.states import UNDECIDED, InputType, OutputType, Reason, State, TransferStatus
from orchestrator_site.base.db.encryption import EncryptedJSONField, EncryptedTextField


def new_uuid() -> UUID:
    """A time-ordered UUID (RFC 9562, version 7): the order of rows is the order of their making."""
    return uuid7()


def made_at(uuid: UUID) -> datetime:
    """When such a UUID was made, to the millisecond: a row's order and its time never disagree."""
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC)


class Instance(models.Model):
    """This installation's name, made once: what carries another's label on a shared engine is not ours."""

    name = models.CharField(max_length=32)

    def __str__(self) -> str:
        return self.name


class Node(models.Model):
    """One container engine: what it has and what of it is reserved."""

    name = models.CharField(max_length=255, unique=True)
    engine_id = models.CharField(max_length=255, blank=True, help_text="What the engine calls itself.")
    network_id = models.CharField(
        max_length=128, blank=True, help_text="The network that jobs run on. It exists on one engine only: the engine's identity."
    )
    network_name = models.CharField(max_length=64, blank=True)
    cpu_millis = models.PositiveIntegerField(default=0, help_text="Thousandths of a core that one job may have.")
    cpu_millis_total = models.PositiveIntegerField(default=0, help_text="Thousandths of a core, overcommitted, to share out.")
    memory_mib = models.PositiveIntegerField(default=0)
    cpu_millis_reserved = models.BigIntegerField(default=0)
    memory_mib_reserved = models.BigIntegerField(default=0)
    warnings = models.JSONField(default=list, help_text="Limits that this engine cannot enforce.")
    seen_at = models.DateTimeField(null=True, help_text="Last heartbeat of one of its workers, by the database's clock.")
    start_refusal = models.TextField(blank=True, default="", db_default="", help_text="In what words starts fail there in a row.")
    start_refused = models.JSONField(null=True, help_text="The last of these: image and job of each.")
    start_pause = models.PositiveIntegerField(null=True, help_text="Seconds between one start that fails and the next try.")
    start_probe = models.UUIDField(null=True, help_text="The job that is to show whether starts work again.")
    next_start_at = models.DateTimeField(
        null=True, help_text="Every start fails there: when it takes one job more, to try. Empty where it takes jobs."
    )

    def __str__(self) -> str:
        return self.name


class Worker(models.Model):
    """A process that runs jobs. It lives as long as its counter moves; the row of a dead one is deleted.

    Its jobs are then without an owner, and what it may still write is refused (see `jobs.maintenance.dead_workers`).
    """

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="workers")
    counter = models.PositiveBigIntegerField(default=0)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    lock_path = models.TextField(help_text="A file that the process holds locked: whoever can take it knows that it is dead.")
    started_at = models.DateTimeField()
    takes_downloads = models.BooleanField(
        default=True, db_default=True, help_text="At its last beat, it could start jobs with downloads."
    )
    takes_uploads = models.BooleanField(
        default=True, db_default=True, help_text="At its last beat, it could start jobs with uploads."
    )

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class Job(models.Model):
    """One container to be run to completion. `status` changes in `jobs.lifecycle` only."""

    uuid = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    id = models.CharField(max_length=128, unique=True)

    image = models.CharField(max_length=512)
    command = models.JSONField(null=True, help_text="A string for a shell, an argument vector, or null for the image's own.")
    cpu_millis = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    timeout_seconds = models.PositiveIntegerField()
    environment = EncryptedJSONField(default=dict)
    meta = models.JSONField(default=dict)
    workspace = models.CharField(max_length=1024)
    pull_policy: "models.CharField[PullPolicy, PullPolicy]" = models.CharField(max_length=16)
    network = models.CharField(max_length=16)
    wants_logs = models.BooleanField(default=False, help_text="Its callback takes log events.")
    has_downloads = models.BooleanField(default=False, db_default=False, help_text="Some of its inputs are downloaded.")
    has_uploads = models.BooleanField(default=False, db_default=False, help_text="Some of its outputs are uploaded.")

    status = models.CharField(max_length=16, choices=State.choices, default=State.ACCEPTED)
    reason = models.CharField(max_length=16, choices=Reason.choices, blank=True)
    error = models.CharField(max_length=1024, blank=True)
    exit_code = models.IntegerField(null=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True, help_text="When it was decided.")
    exited_at = models.DateTimeField(null=True, help_text="When its log ended and its exit event came into being.")
    outputs_cancelled_at = models.DateTimeField(null=True, help_text="When it was cancelled, where it was decided already.")
    completed_at = models.DateTimeField(null=True, help_text="When its last output was handled.")

    owner = models.ForeignKey(Worker, null=True, on_delete=models.SET_NULL, related_name="jobs")
    node = models.ForeignKey(Node, null=True, on_delete=models.PROTECT, related_name="jobs")
    claims = models.PositiveIntegerField(default=0, help_text="How often it was claimed; part of its container's name.")
    refused_starts = models.PositiveIntegerField(
        default=0, db_default=0, help_text="How often it failed to start for reasons that may not be its own."
    )
    owner_deaths = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How many owners died while they drove it, since it last went well."
    )
    reserved = models.BooleanField(default=False, help_text="Its cpu and memory count on its node.")
    doing = models.CharField(max_length=640, blank=True, help_text="What an accepted job's owner is at, in words.")

    log_frames = models.PositiveBigIntegerField(default=0, help_text="How much of the engine's log is stored.")
    log_tail_stdout = models.BinaryField(default=b"")
    log_tail_stderr = models.BinaryField(default=b"")
    log_tail_stdout_time = models.CharField(max_length=40, blank=True)
    log_tail_stderr_time = models.CharField(max_length=40, blank=True)
    log_last_stdout = models.CharField(max_length=40, blank=True, help_text="The engine's time of the last stored frame.")
    log_last_stderr = models.CharField(max_length=40, blank=True)
    log_engine_bytes = models.PositiveBigIntegerField(default=0, help_text="What the engine needed for it, at least.")
    log_next = models.PositiveBigIntegerField(default=1, help_text="Number of the next stored line.")
    log_bytes = models.PositiveBigIntegerField(default=0)
    log_full = models.BooleanField(default=False, help_text="LOG_LIMIT is reached; the marker is stored.")
    log_dropped = models.PositiveBigIntegerField(default=0, help_text="Lines and gaps that no event has told of yet.")

    class Meta:
        indexes = [
            models.Index(fields=["status", "-uuid"], name="job_status_idx"),
            models.Index(fields=["node", "-uuid"], name="job_node_idx"),
            models.Index(fields=["image", "-uuid"], name="job_image_idx"),
            models.Index(fields=["uuid"], condition=Q(status="accepted", node=None), name="job_unclaimed_idx"),
            models.Index(fields=["node", "owner"], condition=Q(completed_at=None), name="job_unfinished_idx"),
            models.Index(fields=["completed_at"], condition=Q(completed_at__isnull=False), name="job_completed_idx"),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def decided(self) -> bool:
        return self.status not in UNDECIDED


class Input(models.Model):
    """A file to be in place before the container starts."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="inputs")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=128, help_text="The client's `id`.")
    type = models.CharField(max_length=16, choices=InputType.choices)
    path = models.CharField(max_length=1024)
    mode = models.PositiveSmallIntegerField(default=0o644)
    content = EncryptedTextField(blank=True, default="", help_text="Of a file, as base64.")
    url = EncryptedTextField(blank=True, default="")
    headers = EncryptedJSONField(default=dict)
    sha256 = models.CharField(max_length=64, blank=True)
    status = models.CharField(max_length=16, choices=TransferStatus.choices, default=TransferStatus.PENDING)
    bytes = models.PositiveBigIntegerField(null=True)
    error = models.CharField(max_length=1024, blank=True)

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["job", "position"], name="input_position")]

    def __str__(self) -> str:
        return self.name


class Output(models.Model):
    """A file to be taken out after the process has ended."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="outputs")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=128, help_text="The client's `id`.")
    type = models.CharField(max_length=16, choices=OutputType.choices)
    path = models.CharField(max_length=1024)
    url = EncryptedTextField(blank=True, default="")
    method = models.CharField(max_length=8, default="PUT")
    headers = EncryptedJSONField(default=dict)
    status = models.CharField(max_length=16, choices=TransferStatus.choices, default=TransferStatus.PENDING)
    bytes = models.PositiveBigIntegerField(null=True)
    error = models.CharField(max_length=1024, blank=True)

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["job", "position"], name="output_position")]

    def __str__(self) -> str:
        return self.name


class LogChunk(models.Model):
    """Consecutive lines of a job's log, as `[[stream, time, text], …]`.

    Almost every line ends in a line feed. `unended` has the others, as `[[index, what is there instead], …]`.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="log_chunks")
    first = models.PositiveBigIntegerField(help_text="Number of its first line; lines count from 1.")
    count = models.PositiveIntegerField()
    lines = models.JSONField()
    unended = models.JSONField(null=True, help_text="Lines that end in no line feed; null where all do.")

    class Meta:
        ordering = ["first"]
        constraints = [models.UniqueConstraint(fields=["job", "first"], name="log_chunk_first")]

    def __str__(self) -> str:
        return f"{self.first}+{self.count}"
