"""Registers a worker's engine as a node: its name, its capacity, and the limits that are not enforced."""

import logging
import secrets
from typing import Any, Final

from jobs.engine.protocol import Engine, EngineInfo, EngineTraits
from jobs.errors import EngineRefused
from jobs.models import Instance, Job, Node
from jobs.running import job_network
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.transactions import short_read, short_transaction

logger = logging.getLogger(__name__)

_NO_BOUND: Final = 2**31 - 1  # the largest number that the database stores: more than a job can ask for


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
    _update(node, **capacity(engine.traits, info, configuration))
    with short_read():
        return Node.objects.get(pk=node.pk)


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


class NodeFacts:
    """What the engine says about itself, as far as it is in the node's row."""

    def __init__(self, node: Node, traits: EngineTraits, configuration: Configuration) -> None:
        self._node = node
        self._traits = traits
        self._configuration = configuration
        self._warnings: tuple[str, ...] | None = None
        self._capacity: dict[str, Any] | None = None

    def store(self, info: EngineInfo) -> None:
        """Store what has changed, and log new warnings.

        Creating a container may have shown one, the engine may have been set up again, and a cluster grows.
        """
        if info.warnings != self._warnings:
            for warning in info.warnings:
                logger.warning("a limit is not enforced: %s", warning, extra={"node": self._node.name})
            _update(self._node, warnings=list(info.warnings))
            self._warnings = info.warnings
        columns = capacity(self._traits, info, self._configuration)
        if columns != self._capacity:
            _update(self._node, **columns)
            self._capacity = columns


def capacity(traits: EngineTraits, info: EngineInfo, configuration: Configuration) -> dict[str, Any]:
    """Return the columns of a node that say what its engine has, and how much of it jobs can have."""
    if traits.schedules:
        return {
            "schedules": True,
            "cpu_millis": _bounded((configuration.node_cpus or info.largest_cpus or _NO_BOUND) * 1000),
            "cpu_millis_total": _bounded(info.cpus * 1000),
            "memory_mib": _bounded(info.memory_bytes // 1024**2),
            "largest_memory_mib": _bounded(
                (configuration.node_memory or info.largest_memory_bytes or _NO_BOUND * 1024**2) // 1024**2
            ),
        }
    cpus = configuration.node_cpus or info.cpus
    memory = configuration.node_memory or info.memory_bytes
    return {
        "schedules": False,
        # The engine refuses a container with more cpus than it has, whatever NODE_CPUS says.
        "cpu_millis": int(min(cpus, info.cpus) * 1000),
        "cpu_millis_total": int(cpus * configuration.cpu_overcommit * 1000),
        "memory_mib": int(memory // 1024**2),
        "largest_memory_mib": None,
    }


def _update(node: Node, **columns: Any) -> None:
    with short_transaction():
        Node.objects.filter(pk=node.pk).update(**columns)


def _bounded(number: float) -> int:
    return min(int(number), _NO_BOUND)
