"""Puts together the processes of the Procfile. In embedded mode one process holds all of them."""

import logging
import os
import signal
import threading
import time
from datetime import timedelta

import dramatiq
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from callbacks import delivery_hints
from callbacks.delivery import actors as delivery_actors
from callbacks.delivery import destination_queue, destination_rows, due_streams
from callbacks.delivery.stream_delivery import Deliverer
from callbacks.delivery.thread_limiter import THREADS
from callbacks.operators import redelivery
from jobs.engine import make_engine
from jobs.errors import EngineUnavailable
from jobs.maintenance import leftovers, lost_nodes, missed_hints, retention
from jobs.maintenance.dead_workers import DeadWorkerDetector
from jobs.maintenance.lost_nodes import LostNodeDetector
from jobs.node_hints import queue_of
from jobs.worker import actors
from jobs.worker.supervisor import Supervisor
from orchestrator_site.base import open_files
from orchestrator_site.base.broker import make_worker
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.transactions import release_connection
from orchestrator_site.base.intervals import BrokerIntervals, JobIntervals, RelayIntervals, WorkerIntervals
from orchestrator_site.duties import Duties, Duty

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

        Raise `NodeNameTaken`.
        """
        open_files.raise_limit(_FILES_PER_JOB * self._configuration.worker_threads + _OTHER_FILES)  # usually it is 1024
        engine = make_engine(self._configuration, self._intervals.engine)
        while not stopping.is_set():
            try:
                self._supervisor = Supervisor(engine, self._configuration, self._intervals)
                break
            except (EngineUnavailable, DatabaseError, InterfaceError, OSError) as error:  # OSError: STATE_DIR is not writable
                logger.warning("cannot start yet: %s", error)
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
            threads = threading.Thread(target=_stop_threads, args=(self._threads, self._broker_intervals), name="stop threads")
            threads.start()
            try:
                self._supervisor.stop()
            finally:
                threads.join()


class DeliverProcess:
    """The part that sends events."""

    def __init__(self, intervals: BrokerIntervals = BrokerIntervals()) -> None:
        self._intervals = intervals

    def start(self, stopping: threading.Event) -> None:  # noqa: ARG002 - as all parts
        self._deliverer = Deliverer()
        delivery_actors.attach(self._deliverer)
        self._threads = make_worker({delivery_hints.QUEUE}, THREADS)
        self._threads.start()

    def stop(self) -> None:
        """Abandon the requests that are not answered soon: another process sends these events again."""
        self._deliverer.stop()
        _stop_threads(self._threads, self._intervals)
        self._deliverer.release_leases()


class RelayProcess:
    """The part that does the periodic duties: it finds what lost messages were about, and deletes what is old."""

    def __init__(
        self,
        configuration: Configuration,
        intervals: RelayIntervals = RelayIntervals(),
        worker_intervals: WorkerIntervals = WorkerIntervals(),
    ) -> None:
        self._intervals = intervals
        self._retention = timedelta(seconds=configuration.job_retention)
        self._dead_workers = DeadWorkerDetector(worker_intervals)
        self._lost_nodes = LostNodeDetector(configuration.node_lost_after, worker_intervals)

    def start(self, stopping: threading.Event) -> None:
        intervals = self._intervals
        detector = self._lost_nodes
        frequent = [
            Duty(intervals.due_streams, due_streams.Finder().enqueue, due_streams.due_rows),
            Duty(intervals.destinations_available, destination_queue.wake_available, destination_queue.available),
            Duty(intervals.destinations_waiting, destination_queue.mark_waiting, destination_queue.unmarked),
            Duty(intervals.redeliveries, redelivery.process_requests, redelivery.requested),
            Duty(intervals.dead_workers, self._dead_workers.check),
            Duty(intervals.lost_nodes, self._end_jobs_of_lost_nodes, lost_nodes.unattended, nothing=detector.reset),
            Duty(intervals.job_hints, missed_hints.wake_workers, missed_hints.unowned),
            Duty(intervals.leftovers, leftovers.request_removal),
        ]
        deleting = [
            Duty(intervals.unused_destinations, destination_rows.delete_unused),
            Duty(intervals.retention, lambda: self._delete_old_jobs(stopping)),
        ]
        # Deleting has a thread of its own, because it may take long.
        self._threads = [
            threading.Thread(target=Duties(duties, intervals.together).do_until, args=(stopping,), name=name, daemon=True)
            for name, duties in (("relay", frequent), ("retention", deleting))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        deadline = time.monotonic() + self._intervals.stop
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _end_jobs_of_lost_nodes(self) -> None:
        lost_nodes.end_jobs(self._lost_nodes.check())

    def _delete_old_jobs(self, stopping: threading.Event) -> None:
        while retention.delete_old_jobs(self._retention) and not stopping.wait(self._intervals.retention_batch):
            pass


def _stop_threads(threads: dramatiq.Worker, intervals: BrokerIntervals) -> None:
    threads.stop(timeout=int(intervals.stop * 1000))


Part = WorkerProcess | DeliverProcess | RelayProcess


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

        def request_stop(*_: object) -> None:
            self.stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, request_stop)
        self.start()
        self.stopping.wait()
        self.stop()
        logging.shutdown()
        # Threads may still block on an engine or a peer. Nothing waits for them: their claims are released.
        os._exit(0)


def embedded_runtime() -> Runtime:
    """Return worker, deliveries and relay as parts of one process."""
    configuration = settings.CONFIGURATION
    return Runtime(DeliverProcess(), RelayProcess(configuration), WorkerProcess(configuration))
