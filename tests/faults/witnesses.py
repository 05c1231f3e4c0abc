"""Observers of a running test: what the engine says that it started, and what /readyz answers over time."""

import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Self

import docker
import requests
from docker.types.daemon import CancellableStream

from jobs.running.container_labels import UUID_LABEL

_PAUSE = 0.25


class Starts:
    """Counts how often the process of each job was started, from the engine's events. Survives restarts of the engine."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._seen: dict[tuple[str, int], str] = {}  # (container, time) → uuid of the job
        self._since = int(time.time())
        self._closing = threading.Event()
        self._stream: CancellableStream | None = None
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="starts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._connected.wait(30), "the engine does not stream its events"
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
        self._thread.join(15)

    def by_job(self) -> Counter[str]:
        """Return the number of starts for each job's uuid."""
        return Counter(self._seen.values())

    def _watch(self) -> None:
        while not self._closing.is_set():
            with suppress(docker.errors.DockerException, requests.RequestException, OSError, ValueError):
                self._listen()
            self._closing.wait(_PAUSE)

    def _listen(self) -> None:
        filters = {"type": "container", "event": "start", "label": UUID_LABEL}
        with closing(docker.APIClient(base_url=self._host, timeout=10)) as client:
            self._stream = client.events(since=self._since - 1, filters=filters, decode=True)
            self._connected.set()
            for event in self._stream:
                self._record(event)

    def _record(self, event: dict[str, Any]) -> None:
        self._since = event["time"]
        self._seen[event["Actor"]["ID"], event["timeNano"]] = event["Actor"]["Attributes"][UUID_LABEL]


@dataclass(frozen=True)
class Probe:
    """One answer of /readyz. `status` is None if there was no answer."""

    began: float
    ended: float
    status: int | None
    checks: dict[str, dict[str, str]]

    def says(self, name: str) -> str:
        return self.checks[name]["status"] if self.checks else "nothing"


class Readiness:
    """Requests /readyz a few times a second."""

    def __init__(self, url: str) -> None:
        self.probes: list[Probe] = []
        self._url = f"{url}/readyz"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._probe, name="readiness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(15)

    def between(self, begin: float, end: float) -> list[Probe]:
        """Return the probes that began and ended between two times of the monotonic clock."""
        return [probe for probe in self.probes if begin <= probe.began and probe.ended <= end]

    def _probe(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._closing.wait(_PAUSE):
                began = time.monotonic()
                status, checks = None, {}
                with suppress(requests.RequestException, ValueError):
                    answer = session.get(self._url, timeout=10)
                    checks = answer.json()["checks"]
                    status = answer.status_code
                self.probes.append(Probe(began, time.monotonic(), status, checks))
