"""What each process of the Procfile is made of. Embedded, one process is all of them."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from callbacks.delivery import destination_queue, due_streams, stream_delivery, thread_shares
from callbacks.delivery.actors import deliver
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

logger = logging.getLogger(__name__)

Duty = tuple[float, Callable[[], object]]  # every so many seconds

_STOP_MILLISECONDS = 3000
_RETRY_SECONDS = 1.0
_FILES_PER_JOB = 4  # a running job has two, and so has each of half as many uploads
_OTHER_FILES = 512


class WorkerProcess:
    """Runs jobs on one engine."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._supervisor: Supervisor | None = None

    def start(self, stopping: threading.Event) -> None:
        """Wait for engine and database, then take up jobs; returns early where `stopping` is set meanwhile.

        Raises `NodeNameTaken`.
        """
        open_files.raise_limit(_FILES_PER_JOB * self._configuration.worker_threads + _OTHER_FILES)  # usually it is 1024
        engine = make_engine(self._configuration)
        while not stopping.is_set():
            try:
                self._supervisor = Supervisor(engine, self._configuration)
                break
            except (EngineUnavailable, DatabaseError, InterfaceError, OSError) as error:  # OSError: STATE_DIR takes no file
                logger.warning("cannot start yet: %s", error)
                release_connection()
                stopping.wait(_RETRY_SECONDS)
        if self._supervisor is None:
            return
        actors.attach(self._supervisor)
        self._threads = make_worker({queue_of(self._supervisor.node.pk)}, self._configuration.worker_threads)
        self._threads.start()
        self._supervisor.start()
        logger.info("the worker runs", extra={"node": self._supervisor.node.name})

    def stop(self) -> None:
        """Hand all jobs over, and meanwhile take up no message: idle threads need seconds to find that they shall end."""
        if self._supervisor is not None:
            idle = threading.Thread(target=self._threads.stop, args=(_STOP_MILLISECONDS,), name="stop threads")
            idle.start()
            try:
                self._supervisor.stop()
            finally:
                idle.join()


class DeliverProcess:
    """Sends events."""

    def start(self, stopping: threading.Event) -> None:  # noqa: ARG002 - as all parts
        stream_delivery.start()
        self._threads = make_worker({deliver.queue_name}, thread_shares.THREADS)
        self._threads.start()

    def stop(self) -> None:
        """What is not answered soon is sent again, by whoever is next."""
        stream_delivery.let_go()
        self._threads.stop(timeout=_STOP_MILLISECONDS)
        stream_delivery.abandon()


class RelayProcess:
    """Finds what messages forgot, and forgets what is old. The latter has a thread of its own: it may take long."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._dead_workers = DeadWorkerDetector()
        self._lost_nodes = LostNodeDetector(configuration.node_lost_after)

    def start(self, stopping: threading.Event) -> None:
        frequent: list[Duty] = [
            (0.5, due_streams.Finder().look),
            (1.0, destination_queue.wake_available),
            (5.0, destination_queue.mark_waiting),
            (1.0, redelivery.work_off),
            (1.0, self._look_after_workers),
            (5.0, missed_hints.wake_workers),
            (30.0, leftovers.request_removal),
        ]
        forgetting: list[Duty] = [(1.0, self._forget_jobs), (60.0, destination_queue.forget_unused)]
        self._threads = [
            threading.Thread(target=self._run, args=(duties, stopping), name=name, daemon=True)
            for name, duties in (("relay", frequent), ("retention", forgetting))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        deadline = time.monotonic() + _STOP_MILLISECONDS / 1000
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, duties: list[Duty], stopping: threading.Event) -> None:
        due = [time.monotonic() for _ in duties]
        while not stopping.is_set():
            for index, (period, duty) in enumerate(duties):
                if time.monotonic() >= due[index]:
                    self._do(duty)
                    due[index] = time.monotonic() + period
            stopping.wait(max(0.0, min(due) - time.monotonic()))

    @staticmethod
    def _do(duty: Callable[[], object]) -> None:
        try:
            duty()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("the database does not answer: %s", error)
        except Exception:
            logger.exception("an unexpected error in the relay")
        finally:
            release_connection()

    def _look_after_workers(self) -> None:
        self._dead_workers.check()
        lost_nodes.end_jobs(self._lost_nodes.check())

    def _forget_jobs(self) -> None:
        """A batch at a time: retention keeps up with any load."""
        retention.delete_old_jobs(timedelta(seconds=self._configuration.job_retention))


Part = WorkerProcess | DeliverProcess | RelayProcess


class Runtime:
    """Some of the parts, started together and stopped together."""

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
        """Bounded by a few seconds; may be called twice."""
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
            logger.warning("the database does not answer, others will find out: %s", error)
        finally:
            release_connection()

    def run_until_signal(self) -> None:
        """Run in the foreground until SIGINT or SIGTERM, then stop and end the process."""
        asked = threading.Event()

        def ask(*_: object) -> None:
            self.stopping.set()
            asked.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask)
        self.start()
        asked.wait()
        self.stop()
        logging.shutdown()
        # Threads that still block on an engine or a peer hold nothing that anybody needs: their claims are given up.
        os._exit(0)


def embedded_runtime() -> Runtime:
    """Worker, deliveries and relay in one process."""
    configuration = settings.CONFIGURATION
    return Runtime(DeliverProcess(), RelayProcess(configuration), WorkerProcess(configuration))
