"""Whether the engine answers, and what its clock says.

A thread of its own asks: a frozen engine keeps whoever asks it for a minute, and neither the supervisor nor a thread
that may claim a job waits so long.
"""

import logging
import threading
import time
from datetime import datetime, timedelta

from jobs.engine.protocol import Engine
from jobs.errors import JobError

logger = logging.getLogger(__name__)

_ASK_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 1.0  # after it did not answer
_RECENT_SECONDS = 10.0


class EngineWatch:
    """Asks one engine, from `start` to `stop`. It counts as answering until it fails to, or is silent for too long."""

    def __init__(self, engine: Engine) -> None:
        """Asks for the first time: raises what the engine's call raises."""
        self._engine = engine
        self._stopping = threading.Event()
        self._failed = False
        self._ask()

    def start(self) -> None:
        threading.Thread(target=self._ask_until_stopped, name="engine watch", daemon=True).start()

    def stop(self) -> None:
        """Ask no more. A question that is not answered yet may take its time: nobody waits for it."""
        self._stopping.set()

    @property
    def answers(self) -> bool:
        return not self._failed and time.monotonic() - self._answered_at < _RECENT_SECONDS

    def clock(self) -> datetime:
        """The engine's time, from its last answer and what has passed since."""
        return self._time_zero + timedelta(seconds=time.monotonic())

    def _ask(self) -> None:
        info = self._engine.info()
        self._answered_at = time.monotonic()
        self.warnings = info.warnings  # the limits that it did not enforce as it last answered
        self._time_zero = info.clock - timedelta(seconds=self._answered_at)

    def _ask_until_stopped(self) -> None:
        while not self._stopping.wait(_ASK_AGAIN_SECONDS if self._failed else _ASK_SECONDS):
            try:
                self._ask()
            except JobError as error:
                if not self._failed:
                    logger.warning("the engine does not answer, no job is taken up until it does: %s", error)
                self._failed = True
            except Exception:
                logger.exception("an unexpected error in the engine watch")
                self._failed = True
            else:
                if self._failed:
                    logger.info("the engine answers again")
                self._failed = False
