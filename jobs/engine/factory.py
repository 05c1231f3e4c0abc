"""Makes the engine that the configuration names. Only a worker imports this, and with it the Docker SDK."""

from typing import Protocol

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine
from orchestrator_site.base.intervals import EngineIntervals


class EngineSettings(Protocol):
    """The part of the configuration that concerns the engine."""

    @property
    def docker_host(self) -> str: ...


def make_engine(settings: EngineSettings, intervals: EngineIntervals = EngineIntervals()) -> Engine:
    """Return the engine that this worker drives, not yet connected. Raise `EngineRefused` for an invalid host."""
    return DockerEngine(settings.docker_host, intervals)
