"""The order in which namespaces may start a job on a node: the one that has the smallest part of it reserved comes first."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import connection
from django.db.models import Q

from jobs.models import Node
from jobs.namespace_use import Use, use_by_node
from orchestrator_site.base.access.limits import NONE, Limits, kept

# Finds one namespace after the other in an index: the cost depends on their number, not on that of the jobs that wait. The order
# by namespace and uuid, and ranges instead of `=`, leave PostgreSQL no other index, whatever its statistics say.
_WAITING: Final = """
WITH RECURSIVE waiting (namespace) AS (
    SELECT (SELECT namespace FROM jobs_job WHERE status = 'accepted' AND node_id IS NULL ORDER BY namespace, uuid LIMIT 1)
    UNION ALL
    SELECT (
        SELECT namespace FROM jobs_job
        WHERE status = 'accepted' AND node_id IS NULL AND namespace > waiting.namespace ORDER BY namespace, uuid LIMIT 1
    )
    FROM waiting WHERE namespace IS NOT NULL
)
SELECT namespace, (
    SELECT uuid FROM jobs_job
    WHERE status = 'accepted' AND node_id IS NULL AND namespace >= waiting.namespace AND namespace <= waiting.namespace
    ORDER BY namespace, uuid LIMIT 1
)
FROM waiting WHERE namespace IS NOT NULL
"""
IN_ORDER: Final = ("namespace", "uuid")  # of the jobs of a namespace that wait, for the same reason

_SMALLEST: Final = Use(jobs=1, cpu_millis=10, memory_mib=6)  # what a job reserves at least


@dataclass(frozen=True, slots=True)
class Turn:
    """A namespace with jobs that wait, and how much more it may reserve."""

    namespace: str
    limits: Limits
    use: Use  # of all nodes
    part: float  # of this node that it has reserved: of cpu or of memory, whichever is more
    oldest: str  # of its jobs that wait

    @property
    def is_full(self) -> bool:
        """Whether no job can start before another has ended, however small it is."""
        return not (self.use + _SMALLEST).is_within(self.limits)

    @property
    def fits(self) -> Q:
        """The condition that a job fits into what the namespace has left."""
        return self._at_most(self.use)

    @property
    def could_hold(self) -> Q:
        """The condition that a job of the namespace fits if no other has reserved anything."""
        return self._at_most(Use())

    def _at_most(self, use: Use) -> Q:
        condition = Q(namespace__gte=self.namespace, namespace__lte=self.namespace)
        if self.limits.max_cpu_millis is not None:
            condition &= Q(cpu_millis__lte=self.limits.max_cpu_millis - use.cpu_millis)
        if self.limits.max_memory_mib is not None:
            condition &= Q(memory_mib__lte=self.limits.max_memory_mib - use.memory_mib)
        return condition


def matter() -> bool:
    """Return whether it makes a difference who comes first, or a namespace has limits. Else the oldest job comes first."""
    limits = kept.all()
    return len(limits) > 1 or any(one.any_for_claims for one in limits.values())


def turns(node: Node) -> list[Turn]:
    """Return the namespaces that may have a job started, in order."""
    limits = kept.all()
    with connection.cursor() as cursor:
        cursor.execute(_WAITING)
        oldest = {str(namespace): UUID(str(uuid)).hex for namespace, uuid in cursor.fetchall()}
    found = []
    for namespace, by_node in use_by_node(list(oldest)).items():
        use = sum(by_node.values(), Use())
        part = _part(by_node.get(node.pk, Use()), node)
        found.append(Turn(namespace, limits.get(namespace, NONE), use, part, oldest[namespace]))
    return sorted((turn for turn in found if not turn.is_full), key=lambda turn: (turn.part, turn.oldest))


def _part(use: Use, node: Node) -> float:
    return max(use.cpu_millis / max(node.cpu_millis_total, 1), use.memory_mib / max(node.memory_mib, 1))
