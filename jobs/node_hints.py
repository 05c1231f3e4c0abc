"""Hints to workers that something may be claimed. Losing one costs a second (see `jobs.worker.supervisor`)."""

from django.db import transaction
from django.db.models import F

from jobs import start_breaker
from jobs.healthy_nodes import healthy_nodes
from jobs.models import Job
from orchestrator_site.base.broker import hint

RUN_ACTOR = "run_jobs"
SWEEP_ACTOR = "sweep_containers"


def queue_of(node_id: int) -> str:
    """The queue that the workers of a node share: only they can reach its engine."""
    return f"jobs.{node_id}"


def node_on_commit(node_id: int) -> None:
    """Tell the node's workers, once the transaction is committed, that a job may be claimed there."""
    transaction.on_commit(lambda: hint(queue_of(node_id), RUN_ACTOR), robust=True)


def somebody_on_commit(job: Job) -> None:
    """Tell the workers of one node that has room for this new job, once it is committed.

    The room is looked for after the commit: whoever gives room back later sees the job, whoever gave
    it back before is seen here. So no job is left waiting beside free capacity.
    """

    def tell() -> None:
        room = healthy_nodes().filter(
            start_breaker.TAKES_JOBS,
            cpu_millis__gte=job.cpu_millis,
            cpu_millis_reserved__lte=F("cpu_millis_total") - job.cpu_millis,
            memory_mib_reserved__lte=F("memory_mib") - job.memory_mib,
        )
        node_id = room.order_by("cpu_millis_reserved").values_list("pk", flat=True).first()
        if node_id is not None:
            hint(queue_of(node_id), RUN_ACTOR)

    transaction.on_commit(tell, robust=True)
