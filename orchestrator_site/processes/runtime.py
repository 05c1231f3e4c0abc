"""Starts and stops parts of the service that run in one process."""

import gc
import logging
import os
import signal
import threading
from typing import Protocol

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from orchestrator_site.base import measurements
from orchestrator_site.base.db.transactions import release_connection

logger = logging.getLogger(__name__)


class Part(Protocol):
    """What a process of the Procfile does. In embedded mode one process has all parts."""

    def start(self, stopping: threading.Event) -> None:
        """Start its threads. Return early if `stopping` is set meanwhile."""

    def stop(self) -> None:
        """Stop within a few seconds."""


class Runtime:
    """Parts that are started and stopped together."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        self._started: list[Part] = []
        self.stopping = threading.Event()

    def start(self) -> None:
        for part in self._parts:
            if self.stopping.is_set():
                return
            part.start(self.stopping)
            self._started.append(part)

    def stop(self) -> None:
        """Stop all parts that were started, within a few seconds. Do nothing the second time."""
        self.stopping.set()
        threads = [threading.Thread(target=self._stop_part, args=(part,), name="stop") for part in self._started]
        self._started = []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @staticmethod
    def _stop_part(part: Part) -> None:
        try:
            part.stop()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("the database does not answer; other processes will declare this one dead: %s", error)
        finally:
            release_connection()

    def run_until_signal(self) -> None:
        """Run in the foreground until SIGINT or SIGTERM, then stop and end the process."""
        measurements.keep_in(settings.CONFIGURATION.state_dir)

        def request_stop(*_: object) -> None:
            self.stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, request_stop)
        self.start()
        freeze_memory()
        self.stopping.wait()
        self.stop()
        logging.shutdown()
        # Threads may still block on an engine or a peer. Nothing waits for them: their claims are released.
        os._exit(0)


def freeze_memory() -> None:
    """Let the garbage collector ignore what exists now, because it lives as long as the process.

    To look through all of it again and again took a tenth of a worker's CPU for a log that is printed at full speed.
    """
    gc.collect()
    gc.freeze()
