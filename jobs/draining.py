"""Drain a node: it takes no new jobs until that is undone. Those that it has claimed go on there.

The mark is in the node's row: it holds for all workers of the node, also for ones that start later. A claim checks it in the
statement that reserves (`jobs.running.claiming`), so no job is claimed after the drain was committed.
"""

from jobs import node_hints
from jobs.models import Node
from orchestrator_site.base.db.transactions import short_transaction


def drain(node_id: int) -> bool:
    """Let the node take no more jobs. Return False if that was so before, or if there is no such node."""
    with short_transaction():
        return bool(Node.objects.filter(pk=node_id, drained=False).update(drained=True))


def undrain(node_id: int) -> bool:
    """Let a drained node take jobs again. Return False if it was not drained."""
    with short_transaction():
        undone = bool(Node.objects.filter(pk=node_id, drained=True).update(drained=False))
        if undone:
            node_hints.hint_node_on_commit(node_id)  # jobs may wait for it
        return undone
