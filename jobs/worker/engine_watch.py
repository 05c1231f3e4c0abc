"""Watches whether the engine answers, what its clock says, and whether the firewall rules of the jobs' network are in place.

In a thread of its own: a frozen engine blocks a call for a minute, which neither the supervisor nor a thread that may claim a
job can wait for.
"""

import logging
import threading
import time
from datetime import datetime, timedelta

from jobs.engine.protocol import Engine
from jobs.errors import JobError
from jobs.models import Node
from orchestrator_site.base.intervals import EngineIntervals
from orchestrator_site.base.log_context import log_context

logger = logging.getLogger(__name__)


class EngineWatch:
    """A thread that asks one engine for its state, from `start` to `stop`."""

    def __init__(self, engine: Engine, node: Node, instance: str, intervals: EngineIntervals = EngineIntervals()) -> None:
        """Ask for the first time. Raise what the engine's call raises."""
        self._engine = engine
        self._node = node
        self._instance = instance
        self._intervals = intervals
        self._stopping = threading.Event()
        self._failed = False
        self._ask()

    def start(self) -> None:
        threading.Thread(target=self._ask_until_stopped, name="engine watch", daemon=True).start()

    def stop(self) -> None:
        """Stop asking. Does not wait for an answer that is still due."""
        self._stopping.set()

    @property
    def answers(self) -> bool:
        """Whether the last call succeeded, and not too long ago."""
        return not self._failed and time.monotonic() - self._answered_at < self._intervals.watch_valid

    def clock(self) -> datetime:
        """Return the engine's time, extrapolated from its last answer."""
        return self._time_zero + timedelta(seconds=time.monotonic())

    def _ask(self) -> None:
        self._engine.protect_network(self._node.network_id, self._instance)
        info = self._engine.info()
        self._answered_at = time.monotonic()
        self.info = info  # its last answer
        self._time_zero = info.clock - timedelta(seconds=self._answered_at)

    def _ask_until_stopped(self) -> None:
        with log_context(node=self._node.name):
            while not self._stopping.wait(self._intervals.watch_retry if self._failed else self._intervals.watch):
                self._ask_again()

    def _ask_again(self) -> None:
        try:
            self._ask()
        except JobError as error:
            if not self._failed:
                logger.warning("the engine does not answer; no job is claimed until it does: %s", error)
            self._failed = True
        except Exception:
            logger.exception("an unexpected error in the engine watch")
            self._failed = True
        else:
            if self._failed:
                logger.info("the engine answers again")
            self._failed = False
