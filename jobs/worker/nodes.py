"""Registers a worker's engine as a node: its name, its capacity, and the limits that are not enforced."""

import logging
import secrets

from django.db import transaction

from jobs.engine.protocol import Engine, EngineInfo
from jobs.errors import EngineRefused
from jobs.models import Instance, Job, Node
from jobs.running import job_network
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.transactions import short_read, short_transaction

logger = logging.getLogger(__name__)


def instance_name() -> str:
    """Return the name of this installation, which the first caller creates."""
    with short_transaction():
        instance, _ = Instance.objects.get_or_create(pk=1, defaults={"name": f"orc{secrets.token_hex(4)}"})
    return instance.name


def register(engine: Engine, configuration: Configuration) -> Node:
    """Find or create this engine's row, its network and its capacity.

    Raise `NodeNameTaken` if the row belongs to another engine, `EngineRefused` if it cannot start jobs as the worker is
    configured, and what the engine's calls raise.
    """
    info = engine.info()
    if info.refusal:
        raise EngineRefused(info.refusal)
    instance = instance_name()
    with short_transaction():
        node, _ = Node.objects.get_or_create(name=configuration.node_name or info.name)
    if not _is_same_engine(node, engine, info):
        job_network.create(engine, node, info, instance)
    return _store_capacity(node.pk, info, configuration)


def _is_same_engine(node: Node, engine: Engine, info: EngineInfo) -> bool:
    """Return whether the row belongs to this engine. False: the engine may take the row over.

    The network decides: two daemons on one host may share name and id.
    """
    if not node.network_id:
        return False
    if engine.find_network(node.network_id) == node.network_name:
        return True
    with short_read():
        has_workers = node.workers.exists()
        has_jobs = Job.objects.filter(node=node, completed_at=None).exists()
    if has_workers or (has_jobs and node.engine_id != info.id):
        raise job_network.NodeNameTaken(node)
    return False  # its network was pruned, or the engine was set up again


def store_warnings(node: Node, warnings: tuple[str, ...]) -> None:
    """Store and log which limits are not enforced."""
    for warning in warnings:
        logger.warning("a limit is not enforced: %s", warning, extra={"node": node.name})
    with short_transaction():
        Node.objects.filter(pk=node.pk).update(warnings=list(warnings))


def _store_capacity(node_id: int, info: EngineInfo, configuration: Configuration) -> Node:
    cpus = configuration.node_cpus or info.cpus
    memory = configuration.node_memory or info.memory_bytes
    with transaction.atomic():
        Node.objects.filter(pk=node_id).update(
            # The engine refuses a container with more cpus than it has, whatever NODE_CPUS says.
            cpu_millis=int(min(cpus, info.cpus) * 1000),
            cpu_millis_total=int(cpus * configuration.cpu_overcommit * 1000),
            memory_mib=int(memory // 1024**2),
        )
        return Node.objects.get(pk=node_id)
