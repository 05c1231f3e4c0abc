"""An engine for tests without Docker: real processes in temporary directories, real tar streams, no isolation."""

from jobs.engine.fake.container import FakeImage
from jobs.engine.fake.engine import FakeEngine

__all__ = ["FakeEngine", "FakeImage"]
