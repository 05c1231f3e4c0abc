"""Repeats hints to workers that may have been lost."""

from django.db.models import QuerySet

from jobs import node_hints
from jobs.healthy_nodes import healthy_nodes
from jobs.models import Job
from jobs.running import claiming
from orchestrator_site.base.broker import hint
from orchestrator_site.base.db.transactions import short_read


def unowned() -> "QuerySet[Job]":
    """Return the unfinished jobs that no worker owns."""
    return Job.objects.filter(owner=None, completed_at=None)


def wake_workers() -> int:
    """Send a hint to every healthy node that has a job to claim. Return the number of nodes."""
    with short_read():
        nodes = [node for node in healthy_nodes().values_list("pk", flat=True) if claiming.has_work(node)]
    for node in nodes:
        hint(node_hints.queue_of(node), node_hints.RUN_ACTOR)
    return len(nodes)
