"""Rows as the service makes them, with defaults for what a test does not care about."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models.functions import Now
from django.utils import timezone

from callbacks import outbox
from jobs import services
from jobs.lifecycle import Claim
from jobs.models import Job, Node, NodeSample, Worker, new_uuid
from jobs.running import claiming
from jobs.spec import CallbackSpec, InputSpec, JobSpec, OutputSpec
from orchestrator_site.base.access.models import DEFAULT
from orchestrator_site.base.db.statements import execute_together

CALLBACK = CallbackSpec(url="http://127.0.0.1:9/hook", keys=("key",))
STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def job_spec(
    *,
    inputs: tuple[InputSpec, ...] = (),
    outputs: tuple[OutputSpec, ...] = (),
    callback: CallbackSpec | None = CALLBACK,
    **values: Any,
) -> JobSpec:
    defaults: dict[str, Any] = {
        "id": None,
        "image": "alpine:latest",
        "command": "true",
        "cpu_millis": 1000,
        "memory_mib": 64,
        "timeout_seconds": 60,
        "environment": {},
        "meta": {},
        "workspace": "/workspace",
        "pull_policy": "missing",
        "network": "bridge",
    }
    return JobSpec(inputs=inputs, outputs=outputs, callback=callback, **(defaults | values))


def make_job(*, namespace: str = DEFAULT, **values: Any) -> Job:
    return services.create(job_spec(**values), namespace)


def subscribe(stream: UUID, subject: str, url: str, *types: str, **options: Any) -> None:
    """Send the events of a stream to `url`. Options are those of `outbox.subscription`."""
    execute_together(outbox.subscription(stream, subject, url, types, **options))


def make_node(name: str = "node", *, cpus: int = 2, overcommit: int = 4, memory_mib: int = 4096) -> Node:
    node = Node.objects.create(
        name=name, cpu_millis=cpus * 1000, cpu_millis_total=cpus * 1000 * overcommit, memory_mib=memory_mib
    )
    Node.objects.filter(pk=node.pk).update(seen_at=Now())
    return node


def make_cluster(name: str = "cluster", *, largest_cpus: int = 2, largest_memory_mib: int = 4096) -> Node:
    """Make a node that schedules: a cluster of three hosts, of which the largest has so much."""
    node = make_node(name, cpus=largest_cpus, overcommit=3, memory_mib=3 * largest_memory_mib)
    Node.objects.filter(pk=node.pk).update(schedules=True, largest_memory_mib=largest_memory_mib)
    node.refresh_from_db()
    return node


def minute(ago: int = 0) -> int:
    """Return the number of the minute `ago` minutes before this one."""
    return int(timezone.now().timestamp()) // 60 - ago


def make_node_sample(node: Node, ago: int, *, cores: float, gib: float) -> NodeSample:
    """Make the sample of a node that had reserved so much, `ago` minutes before now."""
    sample = NodeSample(node=node, minute=minute(ago), cpu_millis_total=node.cpu_millis_total, memory_mib=node.memory_mib)
    sample.cpu_millis_reserved, sample.memory_mib_reserved = int(cores * 1000), int(gib * 1024)
    return sample


def make_worker(node: Node, lock_path: str = "/nonexistent") -> UUID:
    worker = Worker.objects.create(id=new_uuid(), node=node, host="host", pid=1, lock_path=lock_path, started_at=timezone.now())
    return worker.pk


def claimed(job: Job, node: Node | None = None) -> Claim:
    """The job, claimed by a worker of its own."""
    node = node or Node.objects.first() or make_node()
    claim = claiming.claim(node.pk, make_worker(node))
    assert claim is not None
    assert claim.uuid == job.uuid
    return claim
