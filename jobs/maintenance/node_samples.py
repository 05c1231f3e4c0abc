"""Samples of what the nodes have reserved, for charts: at most one per minute and node, however many relays there are.

Only healthy nodes have one: a chart shows no capacity that nothing can use.
"""

from typing import Any, Final

from django.db.models import QuerySet

from jobs.models import NodeSample
from orchestrator_site.base.db.minutes import ThisMinute
from orchestrator_site.base.db.statements import Statement, sql
from orchestrator_site.base.intervals import RelayIntervals, WorkerIntervals

# In order, so that two relays that take samples at once cannot deadlock.
_TAKE: Final = """
INSERT INTO jobs_nodesample (minute, node_id, cpu_millis_total, cpu_millis_reserved, memory_mib, memory_mib_reserved)
SELECT {minute}, id, cpu_millis_total, cpu_millis_reserved, memory_mib, memory_mib_reserved
FROM jobs_node WHERE seen_at > {later} ORDER BY id
ON CONFLICT DO NOTHING"""


def taking(intervals: WorkerIntervals = WorkerIntervals()) -> Statement:
    """Return the statement that takes a sample of each healthy node, unless this minute has one."""
    return sql(_TAKE), [-intervals.healthy_node]


def old(intervals: RelayIntervals = RelayIntervals()) -> QuerySet[Any]:
    """Return the samples that no chart shows any more."""
    return NodeSample.objects.filter(minute__lt=ThisMinute() - int(intervals.samples_kept // 60))
