"""HTTP with one Docker engine: connections, time-outs, and what its answers mean."""

from jobs.engine.docker.transport.api_client import EngineClient, quoted
from jobs.engine.docker.transport.engine_answers import (
    TRANSPORT_ERRORS,
    EngineAnswer,
    engine_unavailable,
    is_engine_trouble,
    is_engine_trouble_in_pull,
)

__all__ = [
    "TRANSPORT_ERRORS",
    "EngineAnswer",
    "EngineClient",
    "engine_unavailable",
    "is_engine_trouble",
    "is_engine_trouble_in_pull",
    "quoted",
]
