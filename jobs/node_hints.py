"""Messages to the workers of a node that they may claim a job. A lost one delays a job by a second: workers also poll."""

import logging
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from django.db import transaction

from jobs import node_room, start_breaker
from jobs.healthy_nodes import healthy_nodes
from jobs.models import Job
from orchestrator_site.base.broker import hint
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, short_read
from orchestrator_site.base.intervals import BrokerIntervals

logger = logging.getLogger(__name__)

# Processes of two releases exchange messages during a deployment, so these names do not change.
RUN_ACTOR = "run_jobs"
LEFTOVERS_ACTOR = "sweep_containers"


def queue_of(node_id: int) -> str:
    """Return the name of the queue that the workers of a node share."""
    return f"jobs.{node_id}"


def hint_node_on_commit(node_id: int) -> None:
    """Send a hint to a node once the current transaction is committed."""
    transaction.on_commit(lambda: hint(queue_of(node_id), RUN_ACTOR), robust=True)


def hint_for_job_on_commit(job: Job) -> None:
    """Send a hint to one node with free capacity for this job, once the current transaction is committed.

    The node is chosen after the commit. A worker that frees capacity later finds the job; capacity that was freed before is
    found here. So no job waits beside free capacity.

    This is done in a thread, so that no client waits for it: a query and Redis took a third of the time of a POST. One query
    is enough for all jobs that were committed since the last one, which was some time ago: while requests come quickly, a query
    for each took a third of the CPU of a POST.
    """
    transaction.on_commit(lambda: _later.send(job), robust=True)


def send_hints(jobs: Iterable[Job]) -> None:
    """Send a hint for each job to the node with the fewest reserved cores of those where it fits, if there is one.

    A cluster gets one only if no other node has room: there the job may have to wait for a place.
    """
    with short_read():
        nodes = list(healthy_nodes().filter(start_breaker.ACCEPTS_JOBS, drained=False))
    for job in jobs:
        able = [node for node in nodes if node_room.largest(node).holds(job) and node_room.left(node).holds(job)]
        if able:
            node = min(able, key=lambda node: (node.schedules, node.cpu_millis_reserved))
            node.cpu_millis_reserved += job.cpu_millis  # here only, for the jobs after it
            node.memory_mib_reserved += job.memory_mib
            hint(queue_of(node.pk), RUN_ACTOR)


class _Later:
    """A thread that sends hints, those for several jobs together."""

    def __init__(self, intervals: BrokerIntervals = BrokerIntervals()) -> None:
        self._pause = intervals.hints
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hints")  # which the first hint starts
        self._jobs: deque[Job] = deque()

    def send(self, job: Job) -> None:
        self._jobs.append(job)
        self._thread.submit(self._send_all)

    def _send_all(self) -> None:
        jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
        if not jobs:  # an earlier call has sent them
            return
        try:
            send_hints(jobs)
        except DATABASE_UNAVAILABLE as error:
            logger.warning("the database does not answer: %s", error)
        except Exception:
            logger.exception("sending hints failed")
        time.sleep(self._pause)


_later = _Later()
