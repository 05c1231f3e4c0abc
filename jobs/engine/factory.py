"""Makes the engine that the configuration names. Only a worker imports this, and with it the Docker SDK."""

from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine
from orchestrator_site.base.intervals import EngineIntervals

Network = IPv4Network | IPv6Network


class EngineSettings(Protocol):
    """The part of the configuration that concerns the engine."""

    @property
    def docker_host(self) -> str: ...

    @property
    def job_network_deny(self) -> tuple[Network, ...] | None: ...

    @property
    def job_runtime(self) -> str: ...


def make_engine(settings: EngineSettings, intervals: EngineIntervals = EngineIntervals()) -> Engine:
    """Return the engine that this worker drives, not yet connected. Raise `EngineRefused` for an invalid host."""
    return DockerEngine(settings.docker_host, intervals, settings.job_network_deny, runtime=settings.job_runtime)
