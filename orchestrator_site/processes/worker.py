"""The part that runs jobs."""

import logging
import threading

from django.db import DatabaseError, InterfaceError

from jobs.engine.factory import make_engine
from jobs.errors import EngineUnavailable
from jobs.node_hints import queue_of
from jobs.worker import actors
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base import open_files
from orchestrator_site.base.broker import make_worker
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.intervals import BrokerIntervals, JobIntervals

logger = logging.getLogger(__name__)

_FILES_PER_JOB = 4  # up to two while it runs or downloads; and half as many uploads have two each
_OTHER_FILES = 512


class WorkerProcess:
    """The part that runs jobs on one engine."""

    def __init__(
        self,
        configuration: Configuration,
        intervals: JobIntervals = JobIntervals(),
        broker_intervals: BrokerIntervals = BrokerIntervals(),
    ) -> None:
        self._configuration = configuration
        self._intervals = intervals
        self._broker_intervals = broker_intervals
        self._supervisor: Supervisor | None = None

    def start(self, stopping: threading.Event) -> None:
        """Wait until engine and database answer, then run jobs. Return early if `stopping` is set.

        Raise `NodeNameTaken`, and `EngineRefused` if the engine cannot start jobs as the worker is configured.
        """
        open_files.raise_limit(_FILES_PER_JOB * self._configuration.worker_threads + _OTHER_FILES)  # usually it is 1024
        engine = make_engine(self._configuration, self._intervals.engine)
        reason = ""
        while not stopping.is_set():
            try:
                self._supervisor = Supervisor(engine, self._configuration, self._intervals)
                break
            except (EngineUnavailable, DatabaseError, InterfaceError, OSError) as error:  # OSError: STATE_DIR is not writable
                if reason != str(error):  # once, not every second of a long outage
                    logger.warning("cannot start yet: %s", error)
                reason = str(error)
                release_connection()
                stopping.wait(self._intervals.worker.start_retry)
        if self._supervisor is None:
            return
        actors.declare(self._supervisor)
        self._threads = make_worker({queue_of(self._supervisor.node.pk)}, self._configuration.worker_threads)
        self._threads.start()
        self._supervisor.start()
        logger.info("the worker is running", extra={"node": self._supervisor.node.name})

    def stop(self) -> None:
        """Hand all jobs over, and meanwhile stop the threads: idle ones need seconds to notice."""
        if self._supervisor is not None:
            threads = threading.Thread(target=self._stop_threads, name="stop threads")
            threads.start()
            try:
                self._supervisor.stop()
            finally:
                threads.join()

    def _stop_threads(self) -> None:
        self._threads.stop(timeout=round(self._broker_intervals.stop * 1000))
