"""What the jobs of a namespace use, and whether it may use more.

The rows of the jobs say it, so that no counter can drift. A transaction that uses more locks the namespace first
(`limits.lock`) and then counts, by a statement of its own, which sees what the holder of the lock before it has committed. One
that uses less needs no lock.
"""

from dataclasses import dataclass

from django.db.models import Count, Sum

from jobs.models import Job
from jobs.states import UNDECIDED
from orchestrator_site.base.access.limits import Limits


@dataclass(frozen=True, slots=True)
class Use:
    """The jobs that have reserved cpu and memory, and how much."""

    jobs: int = 0
    cpu_millis: int = 0
    memory_mib: int = 0

    def __add__(self, other: "Use") -> "Use":
        return Use(self.jobs + other.jobs, self.cpu_millis + other.cpu_millis, self.memory_mib + other.memory_mib)

    def is_within(self, limits: Limits) -> bool:
        return (
            (limits.max_running is None or self.jobs <= limits.max_running)
            and (limits.max_cpu_millis is None or self.cpu_millis <= limits.max_cpu_millis)
            and (limits.max_memory_mib is None or self.memory_mib <= limits.max_memory_mib)
        )


def use_by_node(namespaces: list[str]) -> dict[str, dict[int | None, Use]]:
    """Return what these namespaces use of each node."""
    rows = Job.objects.filter(reserved=True, namespace__in=namespaces).order_by().values_list("namespace", "node")
    found: dict[str, dict[int | None, Use]] = {namespace: {} for namespace in namespaces}
    for namespace, node, *values in rows.annotate(jobs=Count("*"), cpu=Sum("cpu_millis"), memory=Sum("memory_mib")):
        found[namespace][node] = Use(*values)
    return found


def use_of(namespace: str) -> Use:
    """Return what a namespace uses of all nodes."""
    return sum(use_by_node([namespace])[namespace].values(), Use())


def undecided(namespace: str, at_most: int) -> int:
    """Return how many jobs of a namespace are not decided, counting up to `at_most`."""
    return Job.objects.filter(namespace=namespace, status__in=UNDECIDED).order_by()[:at_most].count()
