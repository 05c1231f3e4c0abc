"""What a worker process is beside its threads: a heartbeat, a watch over the rows it owns, and its last will."""

import logging
import threading
import time
from contextlib import suppress
from uuid import UUID

from jobs import lifecycle
from jobs.engine.protocol import Engine
from jobs.errors import OwnershipLost
from jobs.lifecycle import Claim
from jobs.maintenance.dead_workers import DeadWorkerDetector, uncount_death
from jobs.models import Job
from jobs.node_hints import RUN_ACTOR, queue_of
from jobs.running import claiming
from jobs.running.runner import Run
from jobs.running.suspects import GIVEN_UP, GIVEN_UP_AFTER, WELL_AFTER, Suspects
from jobs.states import State
from jobs.worker import nodes
from jobs.worker.engine_watch import EngineWatch
from jobs.worker.heartbeat import Heartbeat
from jobs.worker.upload_pool import Senders
from orchestrator_site.base.broker import hint
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.postgresql import answer_limit
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, release_connection, short_read

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 5.0
_LET_GO_SECONDS = 3.0  # then nobody waits any longer for a call that the engine is still answering
# Where one connection gives no answer another may, before others find that this heart stands still.
_ANSWER_SECONDS = 5.0
_CUT_OFF_LOOKS = 2  # failed ones: a process that was frozen has one at most, on a connection that was closed meanwhile


class Supervisor:
    """One worker process on one node. Worker threads call `run_jobs`; one thread of its own ticks."""

    def __init__(self, engine: Engine, configuration: Configuration) -> None:
        self.engine = engine
        self.node = nodes.register(engine, configuration)
        self.instance = nodes.instance_name()
        self._watch = EngineWatch(engine)
        self._noted_warnings = self._watch.warnings
        self._configuration = configuration
        self._heartbeat = Heartbeat(self.node.pk, configuration.state_dir)
        self._detector = DeadWorkerDetector()
        self._runs: dict[Claim, Run] = {}
        # Slow peers must not hold all threads: half of them never wait for a download, and none for an upload.
        self._most_downloading = self._most_sending = max(1, configuration.worker_threads // 2)
        self._senders = Senders(self._most_sending)
        self._claiming_downloads = 0  # threads that may just be claiming a job with downloads
        self._free = threading.Event()  # set when the last run has ended
        self._free.set()
        self._lock = threading.Lock()
        self._busy = 0  # threads that are in `run_jobs`
        self._stopping = threading.Event()
        self._undriven: set[UUID] = set()  # rows of ours that no thread drove at the last tick
        self._suspects = Suspects()
        self._owned: set[UUID] = set()  # rows that were ours at the last look
        self._failed_looks = 0  # in a row, for want of a database
        self._beat_at = time.monotonic()
        self._thread = threading.Thread(target=self._tick_until_stopped, name="supervisor", daemon=True)

    def start(self) -> None:
        self._watch.start()
        self._thread.start()

    # -- called by worker threads -------------------------------------------------------------------

    def run_jobs(self) -> None:
        """Claim jobs that fit and drive each to its end, until there is none or no more may be claimed."""
        with self._lock:
            if self._is_full:
                return
            self._busy += 1
        try:
            while self._may_claim and (run := self._claim()):
                self._drive(run)
        finally:
            with self._lock:
                self._busy -= 1

    @property
    def _is_full(self) -> bool:
        """Each thread has a job, or takes the next one itself."""
        return self._busy >= self._configuration.worker_threads

    @property
    def _may_claim(self) -> bool:
        """Jobs are not loaded onto an engine that does not answer: they wait where another node may have them."""
        return self._watch.answers and not self._stopping.is_set()

    @property
    def _takes_downloads(self) -> bool:
        """Whether it may claim a job with downloads. Hold the lock."""
        downloading = sum(run.may_download for run in self._runs.values())
        return downloading + self._claiming_downloads < self._most_downloading

    @property
    def _takes_uploads(self) -> bool:
        """Whether it may claim a job with uploads: as many as are being sent may wait for a sender."""
        return self._senders.jobs < 2 * self._most_sending

    def _claim(self) -> Run | None:
        """Claim a job and register its run. None: nothing to do."""
        with self._lock:
            downloads = self._takes_downloads
            self._claiming_downloads += downloads
        try:
            while claim := self._claim_among(downloads=downloads):
                if claim.deaths < GIVEN_UP_AFTER:
                    run = Run(claim, self.engine, self.instance, self._configuration, self.node, self._watch.clock)
                    self._register(run)
                    return run
                with suppress(OwnershipLost):
                    lifecycle.given_up(claim, GIVEN_UP)
                    logger.error("a job is given up: %s", GIVEN_UP, extra={"job": str(claim.uuid), "node": self.node.name})
            return None
        finally:
            with self._lock:
                self._claiming_downloads -= downloads

    def _claim_among(self, *, downloads: bool) -> Claim | None:
        with self._suspects.turn() as may_take:
            among = claiming.startable(downloads=downloads, uploads=self._takes_uploads, suspects=may_take)
            claim = claiming.claim(self.node.pk, self._heartbeat.worker_id, among)
            if claim is not None and claim.deaths < GIVEN_UP_AFTER:
                self._suspects.taken(claim)
            return claim

    def _drive(self, run: Run) -> None:
        """Bring a job to its end, or to where the senders take it."""
        taken = False
        try:
            self._kick()  # there may be more, and threads that a lost message left idle
            taken = run.drive() and self._senders.take(run, self._unregister)
        finally:
            if not taken:
                self._unregister(run)

    def _register(self, run: Run) -> None:
        with self._lock:
            self._runs[run.claim] = run
            self._free.clear()
        if self._stopping.is_set():
            run.let_go()

    def _unregister(self, run: Run) -> None:
        with self._lock:
            del self._runs[run.claim]
            self._suspects.cleared(run.claim)
            if not self._runs:
                self._free.set()

    def _kick(self) -> None:
        """Call one more thread where there is one to call and something to claim.

        A hint: what the database does not answer is looked for again at the next tick, and costs nobody a claim.
        """
        if self._is_full or not self._may_claim:
            return
        with self._lock:
            among = claiming.startable(downloads=self._takes_downloads, uploads=self._takes_uploads)
        try:
            with short_read():
                more = claiming.has_work(self.node.pk, among)
        except DATABASE_UNAVAILABLE as error:
            logger.warning("cannot look for more to run: %s", error, extra={"node": self.node.name})
            return
        if more and not hint(queue_of(self.node.pk), RUN_ACTOR):
            threading.Thread(target=self._run_jobs_uncalled, name="run jobs", daemon=True).start()

    def _run_jobs_uncalled(self) -> None:
        """As the actor does, while no message gets to it."""
        try:
            self.run_jobs()
        except Exception:
            logger.exception("a thread that no message called has failed", extra={"node": self.node.name})
        finally:
            release_connection()

    # -- the supervisor's own thread ------------------------------------------------------------------

    def _tick_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                with answer_limit(_ANSWER_SECONDS):
                    self._tick()
                self._failed_looks = 0
            except DATABASE_UNAVAILABLE as error:
                self._failed_looks += 1
                logger.warning("the database does not answer: %s", error, extra={"node": self.node.name})
            except Exception:
                logger.exception("an unexpected error in the supervisor", extra={"node": self.node.name})
            finally:
                release_connection()
            self._stopping.wait(self._seconds_to_next())

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
        if now - self._beat_at >= _HEARTBEAT_SECONDS:
            if not self._beat():
                logger.error("this worker was declared dead and starts anew", extra={"node": self.node.name})
                if self._failed_looks >= _CUT_OFF_LOOKS:
                    uncount_death(self._owned)
            self._beat_at = now
        self._note_warnings()
        self._wake_changed(runs)
        self._detector.check()
        self._kick()

    def _beat(self) -> bool:
        with self._lock:
            downloads = self._takes_downloads
        return self._heartbeat.beat(
            engine_answers=self._watch.answers, accepts_downloads=downloads, accepts_uploads=self._takes_uploads
        )

    def _note_warnings(self) -> None:
        """Where they changed: a container's creation has shown one, or the engine was set up anew."""
        warnings = self._watch.warnings
        if warnings != self._noted_warnings:
            nodes.store_warnings(self.node, warnings)
            self._noted_warnings = warnings

    def _wake_changed(self, runs: list[Run]) -> None:
        """Wake runs whose row says something else than they know; give up rows that no thread of ours drives.

        One that waits for a sender is given up, too: whoever takes it up does at once what its row now asks.
        """
        mine = Job.objects.filter(owner=self._heartbeat.worker_id, completed_at=None)
        with short_read():
            rows = list(mine.values_list("uuid", "status", "claims", "outputs_cancelled_at", "owner_deaths"))
        owned = {uuid: (status, claims, cancelled is not None) for uuid, status, claims, cancelled, _ in rows}
        self._owned = set(owned)
        self._clear_well(runs, {uuid for uuid, *_, deaths in rows if deaths})
        for run in runs:
            if owned.pop(run.claim.uuid, None) == (run.status, run.claim.number, run.outputs_cancelled):
                continue
            if self._senders.withdraw(run):
                mine.filter(run.claim.guard, uuid=run.claim.uuid).update(owner=None)
            run.interrupt.wake()
        undriven = set(owned)
        stray = undriven & self._undriven  # twice in a row: not one that is just being taken up
        self._undriven = undriven
        if stray:
            logger.error("jobs that no thread drives are given up", extra={"node": self.node.name, "jobs": len(stray)})
            mine.filter(uuid__in=stray).update(owner=None)

    def _clear_well(self, runs: list[Run], counted: set[UUID]) -> None:
        """Forget the deaths of earlier owners for jobs that have run, or ended, under this one for a while."""
        now = time.monotonic()
        well = [run.claim for run in runs if run.status != State.ACCEPTED and now - run.began >= WELL_AFTER]
        if survived := counted & {claim.uuid for claim in well}:
            Job.objects.filter(owner=self._heartbeat.worker_id, uuid__in=survived).update(owner_deaths=0)
        for claim in well:
            self._suspects.cleared(claim)

    def stop(self) -> None:
        """Hand all jobs over within seconds: the containers run on, the next worker adopts them. Twice is once."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for run in self._snapshot():
            run.let_go()
        self._senders.stop()
        self._free.wait(_LET_GO_SECONDS)
        self._thread.join(_TICK_SECONDS)
        self._watch.stop()
        self._heartbeat.stop()
        release_connection()
