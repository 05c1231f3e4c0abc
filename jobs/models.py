"""The tables of jobs: jobs with their inputs, outputs and logs, and the nodes and workers that run them."""

from datetime import UTC, datetime
from uuid import UUID

from django.db import models
from django.db.models import Q
from uuid_utils.compat import uuid7

from jobs.engine.protocol import PullPolicy
from jobs.states import UNDECIDED, InputType, OutputType, Reason, State, TransferStatus
from orchestrator_site.base.access.models import DEFAULT, NAME_LENGTH
from orchestrator_site.base.db.encryption import EncryptedJSONField, EncryptedTextField


def new_uuid() -> UUID:
    """Return a time-ordered UUID (RFC 9562, version 7): rows sorted by it are sorted by age."""
    return uuid7()


def made_at(uuid: UUID) -> datetime:
    """Return when such a UUID was made, to the millisecond. Sorting by time and by UUID is then the same."""
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC)


class Instance(models.Model):
    """The generated name of this installation. Containers on a shared engine are labelled with it."""

    name = models.CharField(max_length=32)

    def __str__(self) -> str:
        return self.name


class Node(models.Model):
    """A container engine: its capacity, and how much of it is reserved (see `jobs.node_room`)."""

    name = models.CharField(max_length=255, unique=True)
    engine_id = models.CharField("engine", max_length=255, blank=True, help_text="The engine's own name.")
    network_id = models.CharField(
        "network ID", max_length=128, blank=True, help_text="The id of the network that jobs run on. It identifies the engine."
    )
    network_name = models.CharField("network", max_length=64, blank=True)
    cpu_millis = models.PositiveIntegerField(
        "largest job (thousandths of a core)", default=0, help_text="Thousandths of a core: the most that one job can have."
    )
    cpu_millis_total = models.PositiveIntegerField(
        "CPU (thousandths of a core)", default=0, help_text="Thousandths of a core for all jobs, with overcommit."
    )
    memory_mib = models.PositiveIntegerField("memory (MiB)", default=0)
    schedules = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether it is a cluster that places jobs itself: what they reserve is counted, and not limited.",
    )
    largest_memory_mib = models.PositiveIntegerField(
        "largest job (MiB)", null=True, help_text="If the node schedules: the most memory that one job can have. Else empty."
    )
    cpu_millis_reserved = models.BigIntegerField("reserved CPU (thousandths of a core)", default=0)
    memory_mib_reserved = models.BigIntegerField("reserved memory (MiB)", default=0)
    warnings = models.JSONField("limits not enforced", default=list, help_text="Limits that this engine does not enforce.")
    seen_at = models.DateTimeField(
        "last heartbeat", null=True, help_text="The last heartbeat of one of its workers, by the database's clock."
    )
    drained = models.BooleanField(
        default=False, db_default=False, help_text="Whether an operator has drained it: it takes no new jobs."
    )
    start_refusal = models.TextField(
        "error", blank=True, default="", db_default="", help_text="The engine's message for the failed starts."
    )
    start_refused = models.JSONField(
        "recent failures", null=True, help_text="The last failed starts in a row: image and job of each."
    )
    start_pause = models.PositiveIntegerField(
        "pause (seconds)", null=True, help_text="Seconds between a failed start and the next try."
    )
    start_probe = models.UUIDField("probing job", null=True, help_text="The job that tests whether starts work again.")
    next_start_at = models.DateTimeField(
        "next start", null=True, help_text="When the node may try another job, if every start fails. Empty if it accepts jobs."
    )

    def __str__(self) -> str:
        return self.name


class NodeSample(models.Model):
    """What a healthy node had reserved in a minute, for charts. The relays take one a minute and delete old ones."""

    pk = models.CompositePrimaryKey("minute", "node")
    minute = models.PositiveIntegerField(help_text="Since 1970, by the database's clock.")
    # Without a constraint: taking a sample locks no node.
    node = models.ForeignKey(Node, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    cpu_millis_total = models.PositiveIntegerField()
    cpu_millis_reserved = models.BigIntegerField()
    memory_mib = models.PositiveIntegerField()
    memory_mib_reserved = models.BigIntegerField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.node_id} in minute {self.minute}"


class Worker(models.Model):
    """A process that runs jobs. It is alive while its counter increases; the row of a dead one is deleted.

    Its jobs then have no owner, and anything that it still tries to write is refused (see `jobs.maintenance.dead_workers`).
    """

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="workers")
    counter = models.PositiveBigIntegerField("heartbeats", default=0)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField("process ID")
    lock_path = models.TextField(help_text="A file that the process keeps locked. If it can be locked, the process is dead.")
    started_at = models.DateTimeField()
    takes_downloads = models.BooleanField(
        "accepts downloads",
        default=True,
        db_default=True,
        help_text="Whether it could claim jobs with downloads at its last heartbeat.",
    )
    takes_uploads = models.BooleanField(
        "accepts uploads",
        default=True,
        db_default=True,
        help_text="Whether it could claim jobs with uploads at its last heartbeat.",
    )

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class Job(models.Model):
    """A container to be run to completion. `status` changes only in `jobs.lifecycle`."""

    uuid = models.UUIDField("UUID", primary_key=True, default=new_uuid, editable=False)
    # Without a foreign key: to check one would lock the table, and namespaces are never deleted.
    namespace = models.CharField(max_length=NAME_LENGTH, default=DEFAULT, db_default=DEFAULT)
    id = models.CharField("ID", max_length=128, help_text="Unique in its namespace.")

    image = models.CharField(max_length=512)
    command = models.JSONField(null=True, help_text="A string for a shell, an argument vector, or null for the image's own.")
    cpu_millis = models.PositiveIntegerField("CPU (thousandths of a core)")
    memory_mib = models.PositiveIntegerField("memory (MiB)")
    timeout_seconds = models.PositiveIntegerField("time-out (seconds)")
    environment = EncryptedJSONField(default=dict)
    meta = models.JSONField(default=dict)
    workspace = models.CharField(max_length=1024)
    pull_policy: "models.CharField[PullPolicy, PullPolicy]" = models.CharField(max_length=16)
    network = models.CharField(max_length=16)
    wants_logs = models.BooleanField("sends log events", default=False, help_text="Whether its callback receives log events.")
    has_downloads = models.BooleanField(default=False, db_default=False, help_text="Whether it has inputs to download.")
    has_uploads = models.BooleanField(default=False, db_default=False, help_text="Whether it has outputs to upload.")
    has_inputs = models.BooleanField(default=True, db_default=True, help_text="Whether it may have inputs of any type.")
    has_outputs = models.BooleanField(default=True, db_default=True, help_text="Whether it may have outputs of any type.")

    status = models.CharField(max_length=16, choices=State.choices, default=State.ACCEPTED)
    reason = models.CharField(max_length=16, choices=Reason.choices, blank=True)
    error = models.CharField(max_length=1024, blank=True)
    exit_code = models.IntegerField("exit code", null=True)
    created_at = models.DateTimeField()
    request_id = models.CharField(
        "request ID", max_length=128, blank=True, default="", db_default="", help_text="The request that created it, in the log."
    )
    # The database sets the next three; they are null in jobs of earlier releases, and again after a job is requeued.
    claimed_at = models.DateTimeField(null=True, help_text="When a node reserved its cpu and memory.")
    pulled_at = models.DateTimeField(null=True, help_text="When its image was pulled; null if the node had it.")
    prepared_at = models.DateTimeField(null=True, help_text="When its container was created and its inputs were in place.")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True, help_text="When it was decided.")
    exited_at = models.DateTimeField("log ended at", null=True, help_text="When its log ended and its exit event was created.")
    outputs_cancelled_at = models.DateTimeField(null=True, help_text="When its outputs were cancelled after it had been decided.")
    completed_at = models.DateTimeField(null=True, help_text="When its last output was finished.")

    owner = models.ForeignKey(Worker, null=True, on_delete=models.SET_NULL, related_name="jobs", verbose_name="worker")
    node = models.ForeignKey(Node, null=True, on_delete=models.PROTECT, related_name="jobs")
    claims = models.PositiveIntegerField(default=0, help_text="How often it was claimed. Part of its container's name.")
    refused_starts = models.PositiveIntegerField(
        "failed starts", default=0, db_default=0, help_text="How often it failed to start for reasons that may not be its fault."
    )
    owner_deaths = models.PositiveSmallIntegerField(
        "worker deaths in a row",
        default=0,
        db_default=0,
        help_text="How many owners died in a row while they drove it without progress.",
    )
    reserved = models.BooleanField(
        "resources reserved", default=False, help_text="Whether its cpu and memory are reserved on its node."
    )
    doing = models.CharField("progress", max_length=640, blank=True, help_text="Progress of an accepted job, as a sentence.")

    cpu_seconds = models.FloatField("CPU time (seconds)", null=True, help_text="Of all its processes; empty if unknown.")
    peak_memory_bytes = models.PositiveBigIntegerField(
        "peak memory (bytes)", null=True, help_text="Of all its processes together, with cached files; empty if unknown."
    )
    input_bytes = models.PositiveBigIntegerField("inputs (bytes)", default=0, db_default=0)
    output_bytes = models.PositiveBigIntegerField("outputs (bytes)", default=0, db_default=0)

    log_frames = models.PositiveBigIntegerField(default=0, help_text="How many frames of the engine's log are stored.")
    log_tail_stdout = models.BinaryField(default=b"")
    log_tail_stderr = models.BinaryField(default=b"")
    log_tail_stdout_time = models.CharField(max_length=40, blank=True)
    log_tail_stderr_time = models.CharField(max_length=40, blank=True)
    log_last_stdout = models.CharField(max_length=40, blank=True, help_text="The engine's timestamp of the last stored frame.")
    log_last_stderr = models.CharField(max_length=40, blank=True)
    log_last_count = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="How many of the last stored frames have the same timestamp.",
    )
    log_engine_bytes = models.PositiveBigIntegerField(default=0, help_text="Bytes that the engine's log had at least.")
    log_next = models.PositiveBigIntegerField(default=1, help_text="Number of the next line to store.")
    log_bytes = models.PositiveBigIntegerField("stored log (bytes)", default=0)
    log_full = models.BooleanField(
        "log limit reached", default=False, help_text="Whether LOG_LIMIT is reached and the marker is stored."
    )
    log_dropped = models.PositiveBigIntegerField(
        "lost lines to report", default=0, help_text="Lost lines and gaps that no event has reported yet."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["namespace", "id"], name="job_id_in_namespace")]
        indexes = [
            models.Index(fields=["namespace", "-uuid"], name="job_namespace_idx"),
            models.Index(fields=["status", "-uuid"], name="job_status_idx"),
            models.Index(fields=["node", "-uuid"], name="job_node_idx"),
            models.Index(fields=["image", "-uuid"], name="job_image_idx"),
            models.Index(fields=["uuid"], condition=Q(status="accepted", node=None), name="job_unclaimed_idx"),
            models.Index(fields=["namespace", "uuid"], condition=Q(status="accepted", node=None), name="job_waiting_idx"),
            models.Index(
                fields=["namespace", "node", "cpu_millis", "memory_mib"], condition=Q(reserved=True), name="job_reserved_idx"
            ),
            models.Index(fields=["namespace"], condition=Q(status__in=["accepted", "running"]), name="job_undecided_idx"),
            models.Index(fields=["node", "owner"], condition=Q(completed_at=None), name="job_unfinished_idx"),
            models.Index(fields=["completed_at"], condition=Q(completed_at__isnull=False), name="job_completed_idx"),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def log_fields(self) -> dict[str, str]:
        """What log records about it name."""
        return {"job": self.id} | ({"request_id": self.request_id} if self.request_id else {})

    @property
    def decided(self) -> bool:
        """Whether its status is final."""
        return self.status not in UNDECIDED


class MetaEntry(models.Model):
    """A member of the `meta` of a job, in an index from which a list reads the newest jobs with a value, however many have it.

    Triggers on the table of jobs keep it, so that jobs from an older release are in it too. Only on PostgreSQL: SQLite has none.
    """

    pk = models.CompositePrimaryKey("key", "value", "uuid")
    key = models.TextField()
    value = models.TextField()
    uuid = models.UUIDField(help_text="Of the job.")

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class Input(models.Model):
    """A file that is put into the container before it starts."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="inputs")
    position = models.PositiveSmallIntegerField()
    name = models.CharField("ID", max_length=128, help_text="The `id` that the client gave.")
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
    """A file that is sent after the process has ended."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="outputs")
    position = models.PositiveSmallIntegerField()
    name = models.CharField("ID", max_length=128, help_text="The `id` that the client gave.")
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

    Almost every line ends in a line feed. `unended` has the others, as `[[index, ending], …]` (`jobs.log_lines.Ending`).
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="log_chunks")
    first = models.PositiveBigIntegerField(help_text="Number of its first line, counted from 1.")
    count = models.PositiveIntegerField()
    lines = models.JSONField()
    unended = models.JSONField(null=True, help_text="Lines that do not end in a line feed; null if all do.")

    class Meta:
        ordering = ["first"]
        constraints = [models.UniqueConstraint(fields=["job", "first"], name="log_chunk_first")]

    def __str__(self) -> str:
        return f"{self.first}+{self.count}"
