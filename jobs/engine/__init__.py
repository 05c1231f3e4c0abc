"""Container engines: `protocol` says what one has to do, `docker` does it."""

from typing import Protocol

from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine


class EngineChoice(Protocol):
    """What of the configuration is about the engine."""

    @property
    def docker_host(self) -> str: ...


def make_engine(choice: EngineChoice) -> Engine:
    """The engine that this worker drives; connects at its first call. Raises `EngineRefused` for a host that cannot be read."""
    return DockerEngine(choice.docker_host)
