"""Reads the samples that the relays take, for the charts of open breakers and of what nodes have reserved."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Count, F, Max, QuerySet, Sum
from django.utils import timezone

from callbacks.models import BreakerSample
from jobs.models import NodeSample
from orchestrator_site.admin.start_page.history import SLOTS, History, Slot
from orchestrator_site.base.intervals import AdminIntervals

NODES: Final = 5  # with a part of their own in each bar
OTHERS: Final = "others"
CAPACITY: Final = "capacity"
OPEN: Final = "open"
_MIB_PER_GIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Samples:
    """What was measured. The nodes that have reserved most have values of their own, named by their keys."""

    breakers: History  # `OPEN`: the most at once
    cpu: History  # cores: averages of each node, `OTHERS` and `CAPACITY`
    memory: History  # GiB: the same
    nodes: dict[str, str]  # name by key, in the order of names
    others: int  # how many nodes the others are


def read(intervals: AdminIntervals = AdminIntervals()) -> Samples:
    """Return the samples of the time that the charts show. Slots without any are not `measured`."""
    width = int(intervals.charts_show) // 60 // SLOTS
    begin = int(timezone.now().timestamp()) // 60 + 1 - width * SLOTS
    breakers, cpu, memory = ([_slot(begin + width * number) for number in range(SLOTS)] for _ in range(3))
    minutes = {}
    of_breakers = _by_slot(BreakerSample.objects.all(), begin, width).values("slot")
    for row in of_breakers.annotate(minutes=Count("minute"), most=Max("open_breakers")):
        number = row["slot"]
        minutes[number] = row["minutes"]
        breakers[number].add(OPEN, row["most"])
        for slots in (breakers, cpu, memory):
            slots[number].measured = True

    rows = list(_nodes(begin, width))
    shown = _busiest(rows)
    for row in rows:
        # Taken together: a minute without a sample of a node is one in which it was not healthy.
        if taken := minutes.get(row["slot"]):
            key = str(row["node"]) if str(row["node"]) in shown else OTHERS
            for slots, resource, unit in ((cpu, "cpu", 1000 * taken), (memory, "memory", _MIB_PER_GIB * taken)):
                slots[row["slot"]].add(key, float(row[f"{resource}_reserved"]) / unit)
                slots[row["slot"]].add(CAPACITY, float(row[f"{resource}_total"]) / unit)
    others = len({row["node"] for row in rows}) - len(shown)
    return Samples(History(breakers, True), History(cpu, True), History(memory, True), shown, others)


def _slot(minute: int) -> Slot:
    return Slot(datetime.fromtimestamp(60 * minute, UTC), measured=False)


def _by_slot(samples: QuerySet[Any], begin: int, width: int) -> QuerySet[Any]:
    shown = samples.filter(minute__gte=begin, minute__lt=begin + width * SLOTS).order_by()
    numbered: QuerySet[Any] = shown.annotate(slot=(F("minute") - begin) / width)
    return numbered


def _nodes(begin: int, width: int) -> QuerySet[Any]:
    """Return for each slot and node the sums of its samples."""
    sums = {
        "cpu_reserved": Sum("cpu_millis_reserved"),
        "cpu_total": Sum("cpu_millis_total"),
        "memory_reserved": Sum("memory_mib_reserved"),
        "memory_total": Sum("memory_mib"),
    }
    by_node = _by_slot(NodeSample.objects.all(), begin, width).values("slot", "node", "node__name")
    summed: QuerySet[Any] = by_node.annotate(**sums)
    return summed


def _busiest(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the nodes that have reserved most: a core counts as much as a GiB, so that both charts show the same nodes."""
    reserved: Counter[tuple[str, str]] = Counter()
    for row in rows:
        reserved[row["node__name"], str(row["node"])] += int(row["cpu_reserved"] + row["memory_reserved"])
    most = sorted(reserved, key=lambda node: (-reserved[node], node))[:NODES]
    return {key: name for name, key in sorted(most)}
