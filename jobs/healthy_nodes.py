"""Which nodes are healthy: a worker of theirs is alive, and their engine answers."""

from datetime import timedelta

from django.db.models import QuerySet
from django.db.models.functions import Now

from jobs.models import Node
from orchestrator_site.base.intervals import WorkerIntervals


def healthy_nodes(intervals: WorkerIntervals = WorkerIntervals()) -> "QuerySet[Node]":
    """Return the nodes that had a heartbeat within `intervals.healthy_node`, by the database's clock."""
    return Node.objects.filter(seen_at__gt=Now() - timedelta(seconds=intervals.healthy_node))
