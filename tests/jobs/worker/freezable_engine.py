"""A fake engine that can be frozen, and whose clock is an hour ahead."""

import threading
from dataclasses import replace
from datetime import timedelta

from jobs.engine.protocol import EngineInfo
from tests.fake_engine import FakeEngine


class FreezableEngine(FakeEngine):
    def __init__(self) -> None:
        super().__init__()
        self._running = threading.Event()
        self._running.set()

    def freeze(self) -> None:
        self._running.clear()

    def thaw(self) -> None:
        self._running.set()

    def close(self) -> None:
        self.thaw()
        super().close()

    def info(self) -> EngineInfo:
        self._running.wait()
        info = super().info()
        return replace(info, clock=info.clock + timedelta(hours=1))
