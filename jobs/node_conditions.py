"""Says in a few words how a node is doing, and how much of it is reserved."""

from datetime import timedelta
from typing import Any, Final

from django.db.models import Case, Exists, OuterRef, QuerySet, Value, When
from django.db.models.functions import Now

from jobs import start_breaker
from jobs.models import Node, Worker
from orchestrator_site.base.intervals import WorkerIntervals

READY: Final = "ready"
DRAINED: Final = "drained"
STARTS_NOTHING: Final = "fails to start containers"
NO_WORKER: Final = "no worker"
SILENT: Final = "engine does not respond"

COLORS: Final = {READY: "success", DRAINED: "info", STARTS_NOTHING: "danger", NO_WORKER: "danger", SILENT: "danger"}


def with_condition(nodes: "QuerySet[Node]", intervals: WorkerIntervals = WorkerIntervals()) -> QuerySet[Any]:
    """Return the nodes with their `condition`, by the database's clock; of several the worst."""
    fresh = Now() - timedelta(seconds=intervals.healthy_node)
    return nodes.annotate(
        condition=Case(
            When(~Exists(Worker.objects.filter(node=OuterRef("pk"))), then=Value(NO_WORKER)),
            When(seen_at=None, then=Value(SILENT)),
            When(seen_at__lte=fresh, then=Value(SILENT)),
            When(~start_breaker.ACCEPTS_JOBS, then=Value(STARTS_NOTHING)),
            When(drained=True, then=Value(DRAINED)),
            default=Value(READY),
        )
    )


def cpu(node: Node) -> str:
    """Return how much cpu is reserved on a node, and how much it has for all jobs, if that is known."""
    total = f" of {node.cpu_millis_total / 1000:g}" if node.cpu_millis_total else ""
    return f"{node.cpu_millis_reserved / 1000:g}{total} cores"


def memory(node: Node) -> str:
    """Return how much memory is reserved on a node, and how much it has, if that is known."""
    total = f" of {node.memory_mib / 1024:.3g}" if node.memory_mib else ""
    return f"{node.memory_mib_reserved / 1024:.3g}{total} GiB"
