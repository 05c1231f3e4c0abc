"""How much cpu and memory of a node a job can have.

A node that schedules is a cluster: what its jobs reserve is counted, and limits nothing. It takes each job that its largest host
could hold, and the job then waits there for a place.
"""

from typing import Final, NamedTuple

from django.db.models import Case, F, When

from jobs.models import Job, Node

# As `left`, in a query.
CPU_LEFT: Final = Case(When(schedules=True, then=F("cpu_millis")), default=F("cpu_millis_total") - F("cpu_millis_reserved"))
MEMORY_LEFT: Final = Case(When(schedules=True, then=F("largest_memory_mib")), default=F("memory_mib") - F("memory_mib_reserved"))


class Room(NamedTuple):
    """Room for one job."""

    cpu_millis: int
    memory_mib: int

    def holds(self, job: Job) -> bool:
        return job.cpu_millis <= self.cpu_millis and job.memory_mib <= self.memory_mib


def largest(node: Node) -> Room:
    """Return the largest job that the node could run if it were empty."""
    if node.schedules:
        return Room(node.cpu_millis, node.largest_memory_mib or 0)
    return Room(min(node.cpu_millis, node.cpu_millis_total), node.memory_mib)


def left(node: Node) -> Room:
    """Return what is not reserved. It may be more than the largest job."""
    if node.schedules:
        return largest(node)
    return Room(node.cpu_millis_total - node.cpu_millis_reserved, node.memory_mib - node.memory_mib_reserved)
