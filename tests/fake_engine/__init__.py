"""A container engine for tests without Docker: real processes in temporary directories, real tar streams, no isolation."""

from tests.fake_engine.fake_engine import FakeEngine
from tests.fake_engine.process_container import FakeImage
from tests.fake_engine.scheduling_engine import SchedulingEngine

__all__ = ["FakeEngine", "FakeImage", "SchedulingEngine"]
