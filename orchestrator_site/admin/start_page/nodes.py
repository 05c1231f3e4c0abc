"""The nodes on the start page: their condition, and how much of their cpu and memory is reserved."""

from dataclasses import dataclass
from typing import Final

from django.urls import reverse

from jobs import node_conditions
from jobs.models import Node

_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Gauge:
    """How much of something is reserved."""

    label: str
    percent: int
    text: str


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """What the start page shows of a node."""

    name: str
    address: str
    condition: str
    color: str
    gauges: list[Gauge]


def loads() -> list[NodeLoad]:
    """Return the nodes by name."""
    nodes = node_conditions.with_condition(Node.objects.order_by("name"))[:_SHOWN]
    return [
        NodeLoad(
            name=node.name,
            address=reverse("admin:jobs_node_change", args=(node.pk,)),
            condition=node.condition,
            color=node_conditions.COLORS[node.condition],
            gauges=[
                Gauge("CPU reserved", _percent(node.cpu_millis_reserved, node.cpu_millis_total), node_conditions.cpu(node)),
                Gauge("Memory reserved", _percent(node.memory_mib_reserved, node.memory_mib), node_conditions.memory(node)),
            ],
        )
        for node in nodes
    ]


def _percent(reserved: int, total: int) -> int:
    return min(round(100 * reserved / total), 100) if total else 0
