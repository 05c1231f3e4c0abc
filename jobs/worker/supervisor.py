"""Runs beside a worker's job threads: sends heartbeats, watches the jobs it owns, and hands them over at shutdown."""

import logging
import math
import threading
import time
from contextlib import suppress
from typing import Final

from jobs import lifecycle
from jobs.engine.protocol import Engine
from jobs.errors import OwnershipLost
from jobs.lifecycle import Claim
from jobs.maintenance.dead_workers import DeadWorkerDetector, uncount_death
from jobs.node_hints import RUN_ACTOR, queue_of
from jobs.running import claiming
from jobs.running.runner import Run
from jobs.running.suspects import GIVEN_UP, GIVEN_UP_AFTER, Suspects
from jobs.states import State
from jobs.worker import nodes
from jobs.worker.active_runs import ActiveRuns
from jobs.worker.disk import DiskWatch
from jobs.worker.engine_watch import EngineWatch
from jobs.worker.heartbeat import Heartbeat
from jobs.worker.job_watch import JobWatch
from jobs.worker.sandbox_pool import SandboxPool
from jobs.worker.upload_pool import UploadPool
from orchestrator_site.base.broker import hint
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.bounded_connections import answer_limit
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, one_connection, release_connection, short_read
from orchestrator_site.base.intervals import JobIntervals
from orchestrator_site.base.log_context import log_context

logger = logging.getLogger(__name__)

# More failed ticks in a row mean that the process is cut off from the database. One that was only frozen has one at most, on a
# connection that was closed in the meantime.
_CUT_OFF_TICKS: Final = 2


class Supervisor:
    """One worker process on one node. Its job threads call `run_jobs`; a thread of its own ticks."""

    def __init__(self, engine: Engine, configuration: Configuration, intervals: JobIntervals = JobIntervals()) -> None:
        """Register the engine's node and a worker on it.

        Raise `NodeNameTaken`, `OSError` if STATE_DIR is not writable, and what the engine and the database raise.
        """
        self.engine = engine
        self.node = nodes.register(engine, configuration)
        self.instance = nodes.instance_name()
        self._configuration = configuration
        self._intervals = intervals
        self._engine_watch = EngineWatch(engine, self.node, self.instance, intervals.engine)
        self._node_facts = nodes.NodeFacts(self.node, engine.traits, configuration)
        self._node_facts.store(self._engine_watch.info)
        self._heartbeat = Heartbeat(self.node.pk, configuration.state_dir)
        self.sandboxes = SandboxPool(
            engine,
            self.node,
            self.instance,
            lambda: self._heartbeat.worker_id,
            0 if engine.traits.schedules else configuration.sandboxes,
            intervals.sandbox,
        )
        self._disk_watch = DiskWatch(engine, self.node.name, configuration.disk_limit, intervals.disk)
        self._dead_workers = DeadWorkerDetector(intervals.worker)
        # Slow peers must not hold all threads: half of them never wait for a download, and none for an upload.
        max_transferring = max(1, configuration.worker_threads // 2)
        self._runs = ActiveRuns(max_transferring)
        self._upload_pool = UploadPool(max_transferring)
        self._max_uploading = 2 * max_transferring  # as many may wait for a thread of the pool as have one
        self._suspects = Suspects(intervals.worker)
        self._job_watch = JobWatch(self.node.name, self._upload_pool, self._suspects, intervals.worker.proven_harmless)
        # One thread at a time: if 16 look together they all try the same jobs, and a claim costs 15 transactions.
        self._claiming = threading.Lock()
        self._lock = threading.Lock()
        self._busy = 0  # threads in `run_jobs`
        self._stopping = threading.Event()
        self._failed_ticks = 0  # in a row, because the database did not answer
        self._clock = time.monotonic
        self._beat_at = self._watched_at = self._clock()
        self._job_thread_failed_at = -math.inf
        self._thread = threading.Thread(target=self._tick_until_stopped, name="supervisor", daemon=True)

    def start(self) -> None:
        self._engine_watch.start()
        self._disk_watch.start()
        self.sandboxes.start()
        self._thread.start()

    def stop(self) -> None:
        """Hand all jobs over within seconds: their containers run on, and the next worker adopts them.

        Do nothing the second time.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        for run in self._runs.snapshot():
            run.hand_over()
        self._upload_pool.stop()
        self.sandboxes.stop()  # no run waits for one any more
        self._runs.wait_until_empty(self._intervals.worker.hand_over)
        self._thread.join(self._intervals.worker.tick)
        self._engine_watch.stop()
        self._disk_watch.stop()
        self._heartbeat.stop()
        release_connection()

    # -- called by job threads ----------------------------------------------------------------------------

    def run_jobs(self) -> None:
        """Claim and drive one job after the other, until none fits or no more may be claimed."""
        with self._lock:
            if self._is_full:
                return
            self._busy += 1
        try:
            with log_context(node=self.node.name):
                while self._may_claim and (run := self._claim()):
                    self._drive(run)
        except Exception:
            self._job_thread_failed_at = self._clock()
            raise
        finally:
            with self._lock:
                self._busy -= 1

    @property
    def _is_full(self) -> bool:
        """Whether all threads are in `run_jobs`: each of them claims the next job itself."""
        return self._busy >= self._configuration.worker_threads

    @property
    def _may_claim(self) -> bool:
        """Whether to claim jobs at all: while the engine does not answer they are left to other nodes."""
        return self._engine_watch.answers and not self._stopping.is_set()

    @property
    def _accepts_uploads(self) -> bool:
        return self._upload_pool.size < self._max_uploading

    def _claim(self) -> Run | None:
        """Claim a job and return its run, or None if there is none that fits."""
        with self._runs.download_slot() as downloads:
            while claim := self._claim_any(downloads=downloads):
                if claim.deaths < GIVEN_UP_AFTER:
                    run = Run(
                        claim,
                        self.engine,
                        self.node,
                        self.instance,
                        self._configuration,
                        self._engine_watch.clock,
                        self.sandboxes,
                        self._disk_watch,
                        self._intervals,
                    )
                    self._runs.add(run)
                    self._disk_watch.add(run)
                    if self._stopping.is_set():
                        run.hand_over()
                    return run
                with suppress(OwnershipLost):
                    job = lifecycle.give_up(claim, GIVEN_UP)
                    logger.error("a job is given up: %s", GIVEN_UP, extra=job.log_fields)
        return None

    def _claim_any(self, *, downloads: bool) -> Claim | None:
        with self._claiming, self._suspects.turn() as suspects:
            if self._stopping.is_set():  # since this thread began to wait for its turn
                return None
            among = claiming.startable(downloads=downloads, uploads=self._accepts_uploads, suspects=suspects)
            claim = claiming.claim(self.node.pk, self._heartbeat.worker_id, among, self._intervals.claim)
            if claim is not None and claim.deaths < GIVEN_UP_AFTER:
                self._suspects.put_on_trial(claim)
            return claim

    def _drive(self, run: Run) -> None:
        """Drive a job to its end, or until it only has outputs left to upload: these go to the upload pool."""
        submitted = False
        try:
            self._wake_thread()  # there may be more jobs, and threads that are idle because a message was lost
            submitted = run.drive() and self._upload_pool.submit(run, self._remove)
        finally:
            if not submitted:
                self._remove(run)

    def _remove(self, run: Run) -> None:
        self._suspects.clear(run.claim)
        run.close()
        self._disk_watch.remove(run)
        self._runs.remove(run)

    def _wake_thread(self) -> None:
        """Send a hint to one more thread if one is idle and there is a job to claim.

        A database that does not answer costs no claim: the next tick looks again.
        """
        if self._is_full or not self._may_claim:
            return
        among = claiming.startable(downloads=self._runs.accepts_downloads, uploads=self._accepts_uploads)
        try:
            with short_read():
                may_have_work = self._busy or claiming.may_have_work(self.node.pk)
                has_work = may_have_work and claiming.has_work(self.node.pk, among, self._intervals.claim)
        except DATABASE_UNAVAILABLE as error:
            logger.warning("cannot look for more jobs: %s", error)
            return
        if has_work and not hint(queue_of(self.node.pk), RUN_ACTOR):
            threading.Thread(target=self._run_jobs_without_message, name="run jobs", daemon=True).start()

    def _run_jobs_without_message(self) -> None:
        """Do what the actor does, while the broker is away."""
        try:
            self.run_jobs()
        except Exception:
            logger.exception("a job thread has failed", extra={"node": self.node.name})
        finally:
            release_connection()

    # -- the supervisor's own thread ----------------------------------------------------------------------

    def _tick_until_stopped(self) -> None:
        with log_context(node=self.node.name):
            while not self._stopping.is_set():
                self._try_tick()
                self._stopping.wait(self._seconds_to_next_tick())

    def _try_tick(self) -> None:
        try:
            with answer_limit(self._intervals.worker.database_answer), one_connection():
                self._tick()
            self._failed_ticks = 0
        except DATABASE_UNAVAILABLE as error:
            self._failed_ticks += 1
            logger.warning("the database does not answer: %s", error)
        except Exception:
            logger.exception("an unexpected error in the supervisor")
        finally:
            release_connection()

    def _seconds_to_next_tick(self) -> float:
        """Return the usual interval, or less if a job's time is up sooner.

        Once its time is up a job is woken, and then may have to wait for its engine: it makes no tick come sooner.
        """
        now, tick = time.monotonic(), self._intervals.worker.tick
        deadlines = [run.deadline for run in self._runs.snapshot() if run.deadline is not None and run.status == State.RUNNING]
        soonest = min((deadline - now for deadline in deadlines if deadline > now), default=tick)
        return max(0.05, min(tick, soonest))

    def _tick(self) -> None:
        runs = self._runs.snapshot()
        for run in runs:
            if run.overdue and run.status == State.RUNNING:
                run.interrupt.wake()
        if self._clock() - self._beat_at >= self._intervals.worker.heartbeat:
            self._beat()
        self._node_facts.store(self._engine_watch.info)
        if runs or self._may_own_undriven:
            self._job_watch.check(self._heartbeat.worker_id, runs)
            self._watched_at = self._clock()
        if self._dead_workers.check():
            self.sandboxes.look()
        self._wake_thread()

    @property
    def _may_own_undriven(self) -> bool:
        """Whether to look for rows that no thread drives, although no thread drives any.

        A job thread that has failed may have left one, even if it failed while it claimed a job: the claim may be committed
        although its answer was lost, or still be committed a moment later.
        """
        idle_tick, now = self._intervals.worker.idle_tick, self._clock()
        failed_lately = now - self._job_thread_failed_at < idle_tick
        return failed_lately or bool(self._job_watch.undriven) or now - self._watched_at >= idle_tick

    def _beat(self) -> None:
        now = self._clock()
        alive = self._heartbeat.beat(
            engine_answers=self._engine_watch.answers,
            accepts_downloads=self._runs.accepts_downloads,
            accepts_uploads=self._accepts_uploads,
        )
        if not alive:
            logger.error("this worker was declared dead and starts over")
            if self._failed_ticks >= _CUT_OFF_TICKS:
                uncount_death(self._job_watch.owned)
        self._beat_at = now
