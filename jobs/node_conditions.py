"""Says in a word or two how a node is doing."""

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
