"""The part that finds what lost messages were about, and deletes what is old."""

import logging
import threading
import time
from datetime import timedelta

from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.db.models.functions import Now

from callbacks import delivery_hints
from callbacks.delivery import breaker_samples, destination_queue, destination_rows, due_streams
from callbacks.operators import redelivery
from jobs.maintenance import leftovers, lost_nodes, missed_hints, node_samples, retention
from jobs.maintenance.dead_workers import DeadWorkerDetector
from jobs.maintenance.lost_nodes import LostNodeDetector
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db import key_rotation
from orchestrator_site.base.db.statements import execute_together
from orchestrator_site.base.intervals import RelayIntervals, WorkerIntervals
from orchestrator_site.processes.duties import Duties, Duty

logger = logging.getLogger(__name__)


def take_samples() -> None:
    """Take the samples for the charts, all in one transaction: a minute that has one of the breakers has those of the nodes."""
    execute_together([node_samples.taking(), breaker_samples.taking()])


def report_unreadable_secrets() -> None:
    """Log an error if the oldest or the newest secrets cannot be decrypted: a key is missing."""
    for row in key_rotation.unreadable_ends():
        logger.error("no key in ENCRYPTION_KEYS decrypts %s", row)


def ended_sessions() -> QuerySet[Session]:
    """Return the sessions of the admin that have ended, which Django does not accept, and does not delete."""
    return Session.objects.filter(expire_date__lt=Now())


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
            Duty(intervals.due_streams, delivery_hints.send, due_streams.due_rows),
            Duty(intervals.destinations_available, destination_queue.wake_available, destination_queue.available),
            Duty(intervals.destinations_waiting, destination_queue.wake_unmarked, destination_queue.unmarked),
            Duty(intervals.redeliveries, redelivery.process_requests, redelivery.requested),
            Duty(intervals.dead_workers, self._dead_workers.check),
            Duty(intervals.lost_nodes, self._end_jobs_of_lost_nodes, lost_nodes.unattended, nothing=detector.reset),
            Duty(intervals.job_hints, missed_hints.wake_workers, missed_hints.unowned),
            Duty(intervals.leftovers, leftovers.request_removal),
            Duty(intervals.samples, take_samples),
            Duty(intervals.samples_of_open_breakers, take_samples, breaker_samples.open_breakers),
        ]
        deleting = [
            Duty(intervals.unreadable_secrets, report_unreadable_secrets),
            Duty(intervals.unused_destinations, destination_rows.delete_unused, destination_rows.unused),
            Duty(intervals.retention, lambda: self._delete_old_jobs(stopping), lambda: retention.oldest_expired(self._retention)),
            Duty(intervals.ended_sessions, lambda: ended_sessions().delete(), ended_sessions),
            Duty(intervals.old_samples, lambda: node_samples.old(intervals).delete(), lambda: node_samples.old(intervals)),
            Duty(intervals.old_samples, lambda: breaker_samples.old(intervals).delete(), lambda: breaker_samples.old(intervals)),
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
