"""What a worker process is beside its threads: a heartbeat, a watch over the rows it owns, and its last will."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import InterfaceError, OperationalError

from jobs import admission, nodes
from jobs.engine.base import Engine
from jobs.errors import EngineUnavailable
from jobs.lifecycle import Claim
from jobs.models import Job
from jobs.ownership import HEARTBEAT_SECONDS, Heart, Observer
from jobs.runner import Run
from jobs.states import State
from jobs.wake import RUN_ACTOR, queue_of
from orchestrator_site.broker import hint
from orchestrator_site.configuration import Configuration
from orchestrator_site.database import release_connection, short_read

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_LET_GO_SECONDS = 4.0


class Supervisor:
    """One worker process on one node. Worker threads call `run_jobs`; one thread of its own ticks."""

    def __init__(self, engine: Engine, configuration: Configuration) -> None:
        self.engine = engine
        self.node = nodes.register(engine, configuration)
        self.instance = nodes.instance_name()
        self._configuration = configuration
        self._heart = Heart(self.node.pk, configuration.state_dir)
        self._observer = Observer()
        self._runs: dict[Claim, Run] = {}
        self._free = threading.Event()  # set when the last run has ended
        self._free.set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._undriven: set[UUID] = set()  # rows of ours that no thread drove at the last tick
        self._beat_at = time.monotonic()
        self._thread = threading.Thread(target=self._tick_until_stopped, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # -- called by worker threads -------------------------------------------------------------------

    def run_jobs(self) -> None:
        """Claim jobs that fit and drive each to its end, until there is none or the process stops."""
        while not self._stopping.is_set() and self._engine_answers():
            claim = admission.claim(self.node.pk, self._heart.worker_id)
            if claim is None:
                return
            run = Run(claim, self.engine, self.instance, self._configuration, self.node)
            with self._registered(run):
                self._kick()  # there may be more, and threads that a lost message left idle
                run.drive()

    def _engine_answers(self) -> bool:
        """Ask an engine that did not answer before, rather than load jobs onto it."""
        if any(run.engine_failed for run in self._snapshot()):
            try:
                self.engine.info()
            except EngineUnavailable:
                return False
        return True

    @contextmanager
    def _registered(self, run: Run) -> Iterator[None]:
        with self._lock:
            self._runs[run.claim] = run
            self._free.clear()
        if self._stopping.is_set():
            run.let_go()
        try:
            yield
        finally:
            with self._lock:
                del self._runs[run.claim]
                if not self._runs:
                    self._free.set()

    def _kick(self) -> None:
        """Call one more thread where there is one to call and something to claim."""
        with self._lock:
            full = len(self._runs) >= self._configuration.worker_threads
        if full:
            return
        with short_read():
            more = admission.has_work(self.node.pk)
        if more:
            hint(queue_of(self.node.pk), RUN_ACTOR)

    # -- the supervisor's own thread ------------------------------------------------------------------

    def _tick_until_stopped(self) -> None:
        while not self._stopping.wait(self._seconds_to_next()):
            try:
                self._tick()
            except (OperationalError, InterfaceError) as error:
                logger.warning("the database does not answer: %s", error, extra={"node": self.node.name})
            except Exception:
                logger.exception("an unexpected error in the supervisor", extra={"node": self.node.name})
            finally:
                release_connection()

    def _seconds_to_next(self) -> float:
        """A second, or less where a job's time is up sooner. Once it is up the job is woken, and may wait for its engine."""
        now = time.monotonic()
        deadlines = [run.deadline for run in self._snapshot() if run.deadline is not None and run.status == State.RUNNING]
        soonest = min((deadline - now for deadline in deadlines if deadline > now), default=_TICK_SECONDS)
        return max(0.05, min(_TICK_SECONDS, soonest))

    def _snapshot(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    def _tick(self) -> None:
        runs = self._snapshot()
        for run in runs:
            if run.overdue and run.status == State.RUNNING:
                run.interrupt.wake()
        now = time.monotonic()
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            self._beat_at = now
            if not self._heart.beat():
                logger.error("this worker was declared dead and starts anew", extra={"node": self.node.name})
        self._wake_changed(runs)
        self._observer.look()
        self._kick()

    def _wake_changed(self, runs: list[Run]) -> None:
        """Wake runs whose row says something else than they know; give up rows that no thread of ours drives."""
        mine = Job.objects.filter(owner=self._heart.worker_id, completed_at=None)
        with short_read():
            owned = {uuid: (status, claims) for uuid, status, claims in mine.values_list("uuid", "status", "claims")}
        for run in runs:
            if owned.pop(run.claim.uuid, None) != (run.status, run.claim.number):
                run.interrupt.wake()
        undriven = set(owned)
        stray = undriven & self._undriven  # twice in a row: not one that is just being taken up
        self._undriven = undriven
        if stray:
            logger.error("jobs that no thread drives are given up", extra={"node": self.node.name, "jobs": len(stray)})
            mine.filter(uuid__in=stray).update(owner=None)

    def stop(self) -> None:
        """Hand all jobs over within seconds: the containers run on, the next worker adopts them. Twice is once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for run in self._snapshot():
            run.let_go()
        self._free.wait(_LET_GO_SECONDS)
        self._thread.join(_TICK_SECONDS)
        self._heart.stop()
        release_connection()
