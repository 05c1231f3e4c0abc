"""What the engine says about the cluster: which it is, what its nodes have, and what the worker's configuration lacks."""

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.engine.kubernetes.quantities import quantity
from jobs.engine.protocol import EngineInfo


@dataclass(frozen=True, slots=True)
class _Capacity:
    cpus: float = 0.0
    memory_bytes: int = 0
    largest_cpus: float | None = None
    largest_memory_bytes: int | None = None


class ClusterInfo:
    """What is known of one cluster. Thread-safe: all bound copies of an engine share it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._capacity = _Capacity()
        self._looked_at = float("-inf")

    def ask(self, client: ClusterClient) -> EngineInfo:
        """Return the description of the cluster. Raise `EngineUnavailable`."""
        answer = client.exchange("GET", client.core())
        if answer.failed:
            raise answer.error()
        capacity = self._known_capacity(client)
        return EngineInfo(
            # The namespace was made in one cluster and is found in no other.
            id=str(answer.data["metadata"]["uid"]),
            name=self._name,
            cpus=capacity.cpus,
            memory_bytes=capacity.memory_bytes,
            warnings=(),
            clock=answer.clock or datetime.now(UTC),
            largest_cpus=capacity.largest_cpus,
            largest_memory_bytes=capacity.largest_memory_bytes,
        )

    def _known_capacity(self, client: ClusterClient) -> _Capacity:
        with self._lock:
            if time.monotonic() - self._looked_at >= client.intervals.cluster_nodes:
                answer = client.exchange("GET", "/api/v1/nodes")
                self._capacity = _Capacity() if answer.failed else _capacity(answer.data["items"])  # 403: it may not be known
                self._looked_at = time.monotonic()
            return self._capacity


def _capacity(nodes: list[dict[str, Any]]) -> _Capacity:
    usable = [node["status"]["allocatable"] for node in nodes if not node["spec"].get("unschedulable")]
    cpus, memory = ([quantity(one[name]) for one in usable] for name in ("cpu", "memory"))
    if not usable:
        return _Capacity()
    return _Capacity(sum(cpus), int(sum(memory)), max(cpus), int(max(memory)))
