"""Says what an accepted job waits for."""

from jobs import node_room
from jobs.healthy_nodes import healthy_nodes
from jobs.models import Job, Worker
from jobs.namespace_use import Use, use_of
from jobs.running.claiming import unclaimed
from jobs.states import State
from orchestrator_site.base.access import limits

_COUNTED = 10_000  # the most jobs ahead that are counted


def waiting_for(job: Job) -> str | None:
    """Return what an accepted job waits for, as a phrase; None for any other job."""
    if job.status != State.ACCEPTED:
        return None
    nodes = list(healthy_nodes())
    if job.node_id is not None:
        if job.owner_id is None:
            return "a worker of its node"
        return job.doing or "preparing" if job.node_id in [node.pk for node in nodes] else "its node's engine to respond"
    if not nodes:
        return "a node's engine to respond" if Worker.objects.exists() else "no node has a living worker"
    rooms = {node: node_room.largest(node) for node in nodes}
    if job.cpu_millis > (largest := max(room.cpu_millis for room in rooms.values())):
        return f"no node with {_cores(job.cpu_millis)} cpus; the largest has {_cores(largest)}"
    if job.memory_mib > (largest := max(room.memory_mib for room in rooms.values())):
        return f"no node with {job.memory_mib} MiB of memory; the largest has {largest} MiB"
    able = [node for node, room in rooms.items() if room.holds(job)]
    if not able:
        return f"no node with both {_cores(job.cpu_millis)} cpus and {job.memory_mib} MiB of memory"
    able = [node for node in able if not node.drained]
    if not able:
        return "a node that takes new jobs: an operator has drained all that are large enough"
    able = [node for node in able if node.next_start_at is None]  # as `start_breaker.ACCEPTS_JOBS`
    if not able:
        return "a node that can start containers: every start fails on the nodes that are large enough"
    workers = Worker.objects.filter(node__in=able)
    if job.has_downloads and not workers.filter(takes_downloads=True).exists():
        return "its turn to download inputs: other jobs are downloading theirs"
    if job.has_uploads and not workers.filter(takes_uploads=True).exists():
        return "its turn: the outputs of jobs that have ended are still being uploaded"
    if full := _limit_of_namespace(job):
        return full
    ahead = unclaimed().filter(namespace=job.namespace, uuid__lt=job.uuid)[:_COUNTED].count()
    if ahead == 0:
        # Only its workers limit how many jobs a cluster takes.
        return "a free thread of a worker" if any(node.schedules for node in able) else "free capacity on a node"
    return f"{'over ' if ahead == _COUNTED else ''}{ahead} job{'' if ahead == 1 else 's'} ahead"


def _limit_of_namespace(job: Job) -> str | None:
    """Return which limit of its namespace keeps the job from starting, as a phrase; None if none does."""
    most = limits.kept.of(job.namespace)
    if not most.any_for_claims:
        return None
    alone = Use(1, job.cpu_millis, job.memory_mib)
    use = alone if not alone.is_within(most) else use_of(job.namespace) + alone
    allowed = {
        f"{most.max_running} job{'' if most.max_running == 1 else 's'}": (most.max_running, use.jobs),
        f"{_cores(most.max_cpu_millis or 0)} cpus": (most.max_cpu_millis, use.cpu_millis),
        f"{most.max_memory_mib} MiB of memory": (most.max_memory_mib, use.memory_mib),
    }
    for text, (limit, needed) in allowed.items():
        if limit is not None and needed > limit:
            return f"its namespace, which may use {text} at once"
    return None


def _cores(millis: int) -> str:
    return f"{millis / 1000:g}"
