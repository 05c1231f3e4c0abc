"""Messages to the workers of a node that they may claim a job. A lost one delays a job by a second: workers also poll."""

from django.db import transaction
from django.db.models import F

from jobs import start_breaker
from jobs.healthy_nodes import healthy_nodes
from jobs.models import Job
from orchestrator_site.base.broker import hint

# Processes of two releases exchange messages during a deployment, so these names do not change.
RUN_ACTOR = "run_jobs"
LEFTOVERS_ACTOR = "sweep_containers"


def queue_of(node_id: int) -> str:
    """Return the name of the queue that the workers of a node share."""
    return f"jobs.{node_id}"


def hint_node_on_commit(node_id: int) -> None:
    """Send a hint to a node once the current transaction is committed."""
    transaction.on_commit(lambda: hint(queue_of(node_id), RUN_ACTOR), robust=True)


def hint_for_job_on_commit(job: Job) -> None:
    """Send a hint to one node with free capacity for this job, once the current transaction is committed.

    The node is chosen after the commit. A worker that frees capacity later finds the job; capacity that was freed before is
    found here. So no job waits beside free capacity.
    """

    def hint_node() -> None:
        candidates = healthy_nodes().filter(
            start_breaker.ACCEPTS_JOBS,
            cpu_millis__gte=job.cpu_millis,
            cpu_millis_reserved__lte=F("cpu_millis_total") - job.cpu_millis,
            memory_mib_reserved__lte=F("memory_mib") - job.memory_mib,
        )
        node_id = candidates.order_by("cpu_millis_reserved").values_list("pk", flat=True).first()
        if node_id is not None:
            hint(queue_of(node_id), RUN_ACTOR)

    transaction.on_commit(hint_node, robust=True)
