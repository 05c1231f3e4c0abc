"""Removes from an engine the containers and networks of this service that no unfinished job needs."""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from jobs import node_hints
from jobs.engine.protocol import Engine, Observation
from jobs.errors import ContainerConflict
from jobs.healthy_nodes import healthy_nodes
from jobs.models import Job, Node
from jobs.running import job_network
from jobs.running.container_labels import INSTANCE_LABEL, NODE_LABEL, UUID_LABEL
from orchestrator_site.base.broker import hint
from orchestrator_site.base.db.transactions import short_read
from orchestrator_site.base.intervals import RelayIntervals

logger = logging.getLogger(__name__)

_BATCH = 200


def request_removal() -> None:
    """Ask a worker of every healthy node to remove the leftovers on its engine."""
    with short_read():
        nodes = list(healthy_nodes().values_list("pk", flat=True))
    for node in nodes:
        hint(node_hints.queue_of(node), node_hints.LEFTOVERS_ACTOR)


def remove_leftovers(
    engine: Engine,
    node: Node,
    instance: str,
    sort_sandboxes: Callable[[list[Observation]], object],
    intervals: RelayIntervals = RelayIntervals(),
) -> int:
    """Remove the containers and networks of `instance` that no unfinished job needs. Return the number of containers.

    Sandboxes are none of them: `sort_sandboxes` gets all containers, and finds those that their worker has left.

    Containers younger than `intervals.leftover_grace`, by the engine's clock, are left alone.
    """
    now = engine.info().clock
    grace = timedelta(seconds=intervals.leftover_grace)
    kept_usage = engine.kept_usage()  # before the list, so that the container of each is in the list if it still exists
    containers = engine.list({INSTANCE_LABEL: instance})
    sort_sandboxes(containers)
    old = [container for container in containers if UUID_LABEL in container.labels and now - container.created_at > grace]
    removed = 0
    for start in range(0, len(old), _BATCH):
        batch = old[start : start + _BATCH]
        nodes = _nodes_of_unfinished_jobs(batch)
        for container in batch:
            if not _is_needed(container, nodes, node):
                removed += _remove(engine, container, node)
    _forget_usage(engine, instance, kept_usage, containers)
    job_network.remove_stale(engine, instance)
    return removed


def _forget_usage(engine: Engine, instance: str, names: Sequence[str], containers: list[Observation]) -> None:
    """Remove the usage of containers that do not exist any more.

    It is left if a container was adopted, if its worker was killed right after the removal, and if it was removed by hand.
    """
    jobs = {_without_claim(container.name) for container in containers}
    for name in names:
        if name.startswith(f"{instance}-") and _without_claim(name) not in jobs:
            engine.forget_usage(name)


def _without_claim(container_name: str) -> str:
    """Return the part of a container's name that stays the same when another worker adopts it."""
    return container_name.rpartition("-")[0]


def _job_of(container: Observation) -> UUID:
    return UUID(container.labels[UUID_LABEL])


def _nodes_of_unfinished_jobs(containers: list[Observation]) -> dict[UUID, int | None]:
    """Return the unfinished jobs among those that the containers were created for, each with its node."""
    with short_read():
        jobs = Job.objects.filter(uuid__in=[_job_of(container) for container in containers], completed_at=None)
        return dict(jobs.values_list("uuid", "node"))


def _is_needed(container: Observation, nodes: dict[UUID, int | None], node: Node) -> bool:
    """Return whether the container's job may still need it.

    A job that was requeued and went to another node does not. While it waits, and its process has run here after all, the next
    claim may go on with that: the node was taken for lost, or the database was restored from a backup. A container that another
    node of this engine made (a node that was renamed, say) is that node's to remove.
    """
    job = _job_of(container)
    if job not in nodes:
        return False
    of_another_node = container.labels.get(NODE_LABEL) != str(node.pk)
    return nodes[job] == node.pk or of_another_node or (nodes[job] is None and container.has_run)


def _remove(engine: Engine, container: Observation, node: Node) -> bool:
    try:
        engine.remove(container.name, force=True)
    except ContainerConflict:
        return False  # it is being removed
    logger.info("removed a container that no job needs", extra={"container": container.name, "node": node.name})
    return True
