"""What no message came for: found by walking the rows, a little at a time. Any number of relays may run."""

import logging
from datetime import timedelta
from uuid import UUID

from django.db.models.functions import Now

from jobs import events, lifecycle, node_hints
from jobs.engine.protocol import Engine, Observation
from jobs.errors import ContainerConflict, OwnershipLost
from jobs.models import Job, LogChunk, Node
from jobs.running import claiming
from jobs.running.claimed_container import INSTANCE_LABEL, NODE_LABEL, UUID_LABEL
from jobs.worker import nodes
from orchestrator_site.base.broker import hint
from orchestrator_site.base.db.transactions import delete_in_batches, short_read

logger = logging.getLogger(__name__)

# A container's row is committed before the container is made, so the grace is for clocks that differ.
_LEFTOVER_GRACE = timedelta(seconds=30)
_BATCH = 200
_FORGET_BATCH = 20  # rows that are deleted at once: a part of a log may be large


def wake_workers() -> int:
    """Tell the workers of every living node that has something to do; how many nodes."""
    with short_read():
        busy = [node for node in node_hints.living_nodes() if claiming.has_work(node)]
    for node in busy:
        hint(node_hints.queue_of(node), node_hints.RUN_ACTOR)
    return len(busy)


def end_lost(node_ids: list[int]) -> int:
    """End or put back the jobs of nodes that are lost; how many."""
    ended = 0
    for node in Node.objects.filter(pk__in=node_ids):
        with short_read():
            jobs = list(claiming.orphans(node.pk).values_list("uuid", flat=True)[:_BATCH])
        for uuid in jobs:
            try:
                lifecycle.lost_with_node(uuid, node.name)
            except OwnershipLost:
                continue
            ended += 1
        if jobs:
            logger.error("a node is lost, its jobs end", extra={"node": node.name, "jobs": len(jobs)})
    return ended


def ask_for_sweeps() -> None:
    """Have every living node's engine looked over."""
    with short_read():
        living = node_hints.living_nodes()
    for node in living:
        hint(node_hints.queue_of(node), node_hints.SWEEP_ACTOR)


def remove_leftovers(engine: Engine, node: Node, instance: str) -> int:
    """Remove containers and networks of ours that no living row speaks of; how many containers."""
    now = engine.info().clock
    old = [
        seen
        for seen in engine.list({INSTANCE_LABEL: instance})
        if UUID_LABEL in seen.labels and now - seen.created_at > _LEFTOVER_GRACE
    ]
    removed = 0
    for start in range(0, len(old), _BATCH):
        part = old[start : start + _BATCH]
        homes = _homes(part)
        for seen in part:
            if not _is_wanted(seen, homes, node):
                removed += _remove(engine, seen)
    nodes.remove_stale_networks(engine)
    return removed


def _job_of(seen: Observation) -> UUID:
    return UUID(seen.labels[UUID_LABEL])


def _homes(seen: list[Observation]) -> dict[UUID, int | None]:
    """The nodes of the unfinished jobs among those that these containers were made for."""
    with short_read():
        rows = Job.objects.filter(uuid__in=[_job_of(one) for one in seen], completed_at=None)
        return dict(rows.values_list("uuid", "node"))


def _is_wanted(seen: Observation, homes: dict[UUID, int | None], node: Node) -> bool:
    """Whether its job may still need it. One that was put back and went elsewhere does not; another node's, should it
    share this engine under a name of its own (a node that was renamed does), is that node's business."""
    job = _job_of(seen)
    return job in homes and (homes[job] == node.pk or seen.labels.get(NODE_LABEL) != str(node.pk))


def _remove(engine: Engine, seen: Observation) -> bool:
    try:
        engine.remove(seen.name, force=True)
    except ContainerConflict:
        return False  # it is being removed
    logger.info("removed a container that no job has", extra={"container": seen.name})
    return True


def forget_old_jobs(retention: timedelta) -> int:
    """Delete a batch of jobs that ended longer ago, by the database's clock, with their logs and deliveries; how many."""
    with short_read():
        ended = Job.objects.filter(completed_at__lt=Now() - retention).order_by("completed_at")
        old = list(ended.values_list("uuid", flat=True)[:_BATCH])
    if old:
        events.forget(old)
        delete_in_batches(LogChunk.objects.filter(job__in=old), _FORGET_BATCH)
        delete_in_batches(Job.objects.filter(uuid__in=old), _FORGET_BATCH)
    return len(old)
