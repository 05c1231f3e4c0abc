"""What running pods use, as far as the cluster measures it: the metrics API, which a metrics server provides.

It tells the rate of CPU time and the memory of the last seconds. These are added up here, without what a process used before the
first measurement and after the last one. One request of a worker asks for all pods.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jobs.engine.kubernetes.api.cluster_client import ClusterClient
from jobs.engine.kubernetes.names import CONTAINER, JOB_NAME_LABEL, NAME_LABEL
from jobs.engine.kubernetes.quantities import quantity
from jobs.engine.kubernetes.states.pod_status import parse_time
from jobs.engine.protocol import Usage
from jobs.errors import JobError

logger = logging.getLogger(__name__)

_PATH: Final = "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods"


@dataclass(slots=True)
class _Sums:
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    measured_at: datetime | None = None
    followers: int = 0


class PodUsage:
    """The usage of the pods that are followed. Thread-safe. Its thread runs while there are any."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._sums: dict[str, _Sums] = {}  # by the Job's own name
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, key: str) -> "FollowedPod":
        """Follow the pod of the Job with this name of its own."""
        with self._lock:
            sums = self._sums.setdefault(key, _Sums())
            sums.followers += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="usage of pods", daemon=True)
                self._thread.start()
        return FollowedPod(self, key, sums)

    def leave(self, key: str) -> None:
        """Stop following one of those who follow a pod."""
        with self._lock:
            sums = self._sums[key]
            sums.followers -= 1
            if not sums.followers:
                del self._sums[key]
            if not self._sums:
                self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.wait(self._ask())
            with self._lock:
                self._changed.clear()
                if not self._sums:
                    self._thread = None
                    return

    def _ask(self) -> float:
        """Ask for the measurements, and return the seconds until the next time."""
        intervals = self._client.intervals
        try:
            path = _PATH.format(self._client.namespace)
            answer = self._client.exchange("GET", path, params={"labelSelector": NAME_LABEL})
        except JobError:
            return intervals.cluster_usage
        if answer.failed:  # no metrics server, or no permission
            return intervals.cluster_usage_retry
        for found in answer.data["items"]:
            self._add(found)
        return intervals.cluster_usage

    def _add(self, found: Mapping[str, Any]) -> None:
        measured_at = parse_time(found["timestamp"])
        used = next((one["usage"] for one in found["containers"] if one["name"] == CONTAINER), None)
        with self._lock:
            sums = self._sums.get(found["metadata"].get("labels", {}).get(JOB_NAME_LABEL, ""))
            if sums is None or used is None or measured_at is None:
                return
            seconds = _seconds(found["window"]) if sums.measured_at is None else (measured_at - sums.measured_at).total_seconds()
            sums.cpu_seconds = (sums.cpu_seconds or 0.0) + quantity(used["cpu"]) * max(seconds, 0.0)
            sums.peak_memory_bytes = max(sums.peak_memory_bytes or 0, int(quantity(used["memory"])))
            sums.measured_at = measured_at


class FollowedPod:
    """A `FollowedUsage`."""

    def __init__(self, usage: PodUsage, key: str, sums: _Sums) -> None:
        self._usage = usage
        self._key = key
        self._sums = sums
        self._is_open = True

    def latest(self) -> Usage | None:
        if self._sums.measured_at is None:
            return None
        return Usage(self._sums.cpu_seconds, self._sums.peak_memory_bytes)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._usage.leave(self._key)


def _seconds(window: str) -> float:
    """Return the seconds of a duration as Go writes it: `15.3s`, `1m30s`."""
    total, number = 0.0, ""
    for sign in window:
        if sign.isdigit() or sign == ".":
            number += sign
        elif number:
            total += float(number) * {"h": 3600.0, "m": 60.0, "s": 1.0}.get(sign, 0.0)
            number = ""
    return total
