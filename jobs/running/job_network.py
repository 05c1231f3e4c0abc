"""Creates the network that the jobs of a node run on, and removes networks that a crash has left.

It exists on one engine only, so its id shows which engine a node's row belongs to.
"""

import secrets
from contextlib import suppress

from django.db.models import Q

from jobs.engine.protocol import Engine, EngineInfo
from jobs.errors import ContainerConflict, JobError
from jobs.models import Node
from jobs.running.container_labels import INSTANCE_LABEL
from orchestrator_site.base.db.transactions import short_read, short_transaction


class NodeNameTaken(JobError):
    """Another engine uses this node name: `NODE_NAME` must differ from engine to engine."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"another engine uses the node name {node.name}: set NODE_NAME to a name that no other engine has")


def create(engine: Engine, node: Node, info: EngineInfo, instance: str) -> None:
    """Create a network and store it in the node's row, unless another worker of this engine was faster.

    The name is random and used once: engines allow several networks of one name, and then refuse to start containers on
    them. Raise `NodeNameTaken` if a worker of another engine was faster.
    """
    name = f"{instance}-{secrets.token_hex(4)}"
    network_id = engine.create_network(name, {INSTANCE_LABEL: instance})
    engine.protect_network(network_id, instance)  # before a job can use it
    with short_transaction():
        stored = Node.objects.filter(pk=node.pk, network_id=node.network_id).update(
            network_id=network_id, network_name=name, engine_id=info.id
        )
    if stored:
        return
    engine.remove_network(network_id)
    node.refresh_from_db()
    if engine.find_network(node.network_id) != node.network_name:
        raise NodeNameTaken(node)


def renew(engine: Engine, node: Node, instance: str) -> None:
    """Create the node's network again if it was removed, as `docker system prune` does while no job runs.

    Updates `node` in place: all runs that share it create their next containers on the new network.
    """
    with short_read():
        current = Node.objects.get(pk=node.pk)
    if engine.find_network(current.network_id) is None:
        create(engine, current, engine.info(), instance)
        with short_read():
            current.refresh_from_db()
    engine.protect_network(current.network_id, instance)
    node.network_id, node.network_name = current.network_id, current.network_name


def remove_stale(engine: Engine, instance: str) -> None:
    """Remove networks that a crash between their creation and the update of the node's row has left on an engine.

    Then remove the firewall rules of all networks that are gone.
    """
    with short_read():
        in_use = set(Node.objects.filter(~Q(network_id="")).values_list("network_id", flat=True))
    for network_id in engine.list_networks({INSTANCE_LABEL: instance}):
        if network_id not in in_use:
            with suppress(ContainerConflict):  # a sandbox is still on it, and will be removed
                engine.remove_network(network_id)
    engine.remove_unused_rules(instance, in_use)
