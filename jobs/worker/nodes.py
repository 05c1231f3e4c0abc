"""Which row of `Node` is this engine's: names, identities and capacity."""

import logging
import secrets

from django.db import transaction
from django.db.models import Q

from jobs.engine.protocol import Engine, EngineInfo
from jobs.errors import JobError
from jobs.models import Instance, Job, Node
from jobs.running.claimed_container import INSTANCE_LABEL
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.transactions import short_read, short_transaction

logger = logging.getLogger(__name__)


class NodeNameTaken(JobError):
    """Another engine holds this name: `NODE_NAME` must differ from engine to engine."""


def instance_name() -> str:
    """This installation's name, made by whoever asks first."""
    with short_transaction():
        instance, _ = Instance.objects.get_or_create(pk=1, defaults={"name": f"orc{secrets.token_hex(4)}"})
    return instance.name


def register(engine: Engine, configuration: Configuration) -> Node:
    """Find or make this engine's row, its network and its capacity. Raises `NodeNameTaken`."""
    info = engine.info()
    instance = instance_name()
    with short_transaction():
        node, _ = Node.objects.get_or_create(name=configuration.node_name or info.name)
    if not _is_same_engine(node, engine, info):
        _hold(node, engine, info, {INSTANCE_LABEL: instance})
    return _refresh(node.pk, info, configuration)


def _is_same_engine(node: Node, engine: Engine, info: EngineInfo) -> bool:
    """A network exists on one engine only; two daemons of one host may share name and id."""
    if not node.network_id:
        return False
    if engine.find_network(node.network_id) == node.network_name:
        return True
    with short_read():
        alive = node.workers.exists()
        holds_jobs = Job.objects.filter(node=node, completed_at=None).exists()
    if alive or (holds_jobs and node.engine_id != info.id):
        raise NodeNameTaken(f"another engine is the node {node.name}: set NODE_NAME to a name of this engine's own")
    return False  # its network was pruned, or the engine was set up anew


def renew_network(engine: Engine, node: Node) -> None:
    """Make the node's network anew where somebody has removed it, as `docker system prune` does while no job runs.

    Changes `node` in place: whoever shares it makes the next containers for the new network.
    """
    with short_read():
        current = Node.objects.get(pk=node.pk)
    if engine.find_network(current.network_id) is None:
        _hold(current, engine, engine.info(), {INSTANCE_LABEL: instance_name()})
        with short_read():
            current.refresh_from_db()
    node.network_id, node.network_name = current.network_id, current.network_name


def _hold(node: Node, engine: Engine, info: EngineInfo, labels: dict[str, str]) -> None:
    """Make a network and write it down, unless another worker of this engine was faster.

    The name is random and used once: engines allow several networks of one name, and then refuse to start containers on them.
    """
    name = f"{labels[INSTANCE_LABEL]}-{secrets.token_hex(4)}"
    network_id = engine.create_network(name, labels)
    with short_transaction():
        first = Node.objects.filter(pk=node.pk, network_id=node.network_id).update(
            network_id=network_id, network_name=name, engine_id=info.id
        )
    if first:
        return
    engine.remove_network(network_id)
    node.refresh_from_db()
    if engine.find_network(node.network_id) != node.network_name:
        raise NodeNameTaken(f"another engine is the node {node.name}: set NODE_NAME to a name of this engine's own")


def note_warnings(node_id: int, warnings: tuple[str, ...]) -> None:
    """Write down which limits the engine does not enforce, and log them."""
    for warning in warnings:
        logger.warning("the engine cannot enforce a limit: %s", warning, extra={"node": node_id})
    with short_transaction():
        Node.objects.filter(pk=node_id).update(warnings=list(warnings))


def _refresh(node_id: int, info: EngineInfo, configuration: Configuration) -> Node:
    cpus = configuration.node_cpus or info.cpus
    memory = configuration.node_memory or info.memory_bytes
    note_warnings(node_id, info.warnings)
    with transaction.atomic():
        Node.objects.filter(pk=node_id).update(
            # The engine refuses a container with more cpus than it has, whatever NODE_CPUS says.
            cpu_millis=int(min(cpus, info.cpus) * 1000),
            cpu_millis_total=int(cpus * configuration.cpu_overcommit * 1000),
            memory_mib=int(memory // 1024**2),
        )
        return Node.objects.get(pk=node_id)


def remove_stale_networks(engine: Engine) -> None:
    """Remove networks of ours that a crash between making and writing down has left on an engine."""
    with short_read():
        ours = set(Node.objects.filter(~Q(network_id="")).values_list("network_id", flat=True))
    for network_id in engine.list_networks({INSTANCE_LABEL: instance_name()}):
        if network_id not in ours:
            engine.remove_network(network_id)
