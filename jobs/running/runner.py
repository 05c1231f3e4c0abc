"""Takes one claimed job from wherever it stands to its end, step by step.

`Run.drive` may begin at any point of a job's life, and be killed after any line. It looks at the row and at the engine, does the
next step, commits it, and repeats: without a container it creates one; after a crash it finds the container by its labels and
goes on from the committed cursor of the log.

A step that knows what the next one would read hands it over: the row that it has just written, and the container that it has just
seen. Both may have changed since, as always: the row's guards and the engine's answers say so, and then the run looks again.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime

from jobs import lifecycle
from jobs.engine.protocol import Engine, Observation
from jobs.errors import ContainerNotFound, EngineRefused, Interrupted, JobError, OwnershipLost
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.logs.log_follower import LogFollower
from jobs.logs.log_writer import LogWriter
from jobs.models import Job, Node
from jobs.running.claimed_container import ClaimedContainer
from jobs.running.disk_limit import DiskLimit
from jobs.running.job_files import JobFiles
from jobs.running.job_start import JobStart
from jobs.running.network_sandboxes import Sandboxes
from jobs.running.process_outcome import LOST, Outcome, outcome_of
from jobs.running.retries import Retries, is_temporary
from jobs.states import NO_EXIT_CODE, Reason, State
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, short_read, short_transaction
from orchestrator_site.base.intervals import JobIntervals
from orchestrator_site.base.log_context import add_fields, log_context

logger = logging.getLogger(__name__)

Standing = tuple[Job, Observation | None]  # the row, and the container if a step has just seen it


class Run:
    """One thread's work on one job that its worker has claimed."""

    def __init__(
        self,
        claim: Claim,
        engine: Engine,
        node: Node,
        instance: str,
        configuration: Configuration,
        engine_clock: Callable[[], datetime],
        sandboxes: Sandboxes,
        disk: DiskLimit,
        intervals: JobIntervals = JobIntervals(),
    ) -> None:
        # What the last step has left. The row is not kept while the job runs: there may be hundreds, each with its environment.
        self._standing: Standing | None = None if claim.job is None else (claim.job, None)
        self.claim = claim = replace(claim, job=None)
        self.interrupt = Interrupt()
        self.began = time.monotonic()
        self.deadline: float | None = None  # of the process, by `time.monotonic`
        self.status = State.ACCEPTED  # this one and the next two are as last read from the row
        self.may_download = True  # it has not started, and may have inputs to download
        self.outputs_cancelled = False
        self.handing_over = False
        self.disk_excess = ""  # why its process has to be ended: it has written too much
        self._seen_running = False  # by this owner
        self._follower: LogFollower | None = None  # that has read the log until its process ended
        self._log_fields = {"job": str(claim.uuid)}  # the client's id and that of its request, once the row was read
        self._node = node
        self._configuration = configuration
        self._engine_clock = engine_clock
        self._disk = disk
        self._intervals = intervals
        self._engine = engine.bound(self.interrupt)
        self._container = ClaimedContainer(
            engine,
            claim,
            node,
            instance,
            self.interrupt,
            sandboxes,
            stop_grace=configuration.shutdown_grace,
            engine_log_limit=configuration.engine_log_limit,
            disk_limit=configuration.disk_limit,
        )
        self._files = JobFiles(
            claim,
            self._engine,
            self._container.name,
            self.interrupt,
            timeout=configuration.transfer_timeout,
            size_limit=configuration.transfer_limit,
            disk_limit=configuration.disk_limit,
            spool_directory=configuration.state_dir / "spool",
            intervals=intervals,
        )
        self._job_start = JobStart(
            claim,
            self._engine,
            node,
            self._container,
            self._files,
            self.interrupt,
            images_allow=configuration.images_allow,
            pull_timeout=configuration.pull_timeout,
            intervals=intervals,
        )

    def hand_over(self) -> None:
        """Make `drive` return soon. The container runs on, and the job is left to the next owner."""
        self.handing_over = True
        self.interrupt.wake()

    def end_for_disk(self, excess: str) -> None:
        """End the job soon because it has written too much to the disk; `excess` says how much in a sentence."""
        self.disk_excess = excess
        self.interrupt.wake()

    def close(self) -> None:
        """Let go of what the run holds in this process. To be called at its end, however it ends."""
        self._close_follower()
        self._container.leave()

    @property
    def container_name(self) -> str:
        return self._container.name

    @property
    def is_waiting(self) -> bool:
        """Whether its container waits for an engine that schedules."""
        return self._job_start.is_waiting

    @property
    def overdue(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def log_context(self) -> dict[str, str]:
        """What log records about the run name."""
        return {**self._log_fields, "container": self._container.name, "node": self._node.name}

    def drive(self, *, uploading: bool = False) -> bool:
        """Bring the job to its end. Return True if it has outputs to upload first, and `uploading` is False.

        Return early if the job is not ours any more, and after `hand_over`.
        """
        with log_context(**self.log_context):
            return self._drive(uploading=uploading)

    def _drive(self, *, uploading: bool) -> bool:
        retries = Retries(self._intervals.run)
        while not self.handing_over:
            began = time.monotonic()
            before, self._standing = self._standing, None
            try:
                before = before or self._look()
                if before is None or before[0].completed_at is not None:
                    break
                if not uploading and _is_ready_to_upload(before[0]):
                    return True
                self._standing = self._advance(*before)
                retries.reset()
            except (OwnershipLost, Interrupted):
                retries.reset()
            except Exception as error:
                # Only while the process runs, because then its time-out bounds the number of tries. Another step may take this
                # long each time that it fails.
                if self.status == State.RUNNING and time.monotonic() - began > self._intervals.run.stable:
                    retries.reset()
                self._recover(error, retries)
        return False

    def _recover(self, error: Exception, retries: Retries) -> None:
        if is_temporary(error):
            self._log(logging.WARNING, f"trying again: {error}")
            pause = retries.after_temporary()
        else:
            self._log(logging.ERROR, "an unexpected error in a run", exc_info=True)
            pause = retries.after_unexpected()
        with suppress(Interrupted):
            self.interrupt.sleep(pause)
        if retries.exhausted():
            self._give_up()

    def _look(self) -> Standing | None:
        """Return the row, or None if the job is not ours any more or complete, and after `hand_over`.

        This alone clears the interrupt: what it was set for is in the row.
        """
        self.interrupt.clear()
        if self.handing_over:
            return None
        with short_read():
            job = Job.objects.filter(self.claim.guard, uuid=self.claim.uuid, completed_at=None).order_by().first()
        return None if job is None else (job, None)

    def _advance(self, job: Job, seen: Observation | None) -> Standing | None:
        """Do the next step. Return what it leaves, or None if the run has to look again."""
        if self._log_fields != job.log_fields:
            self._log_fields = job.log_fields
            add_fields(**self._log_fields)
        if self.status != job.status:
            self.status = State(job.status)
            message = "the job is %(status)s: %(reason)s" if job.reason else "the job is %(status)s"
            logger.info(message, {"status": job.status, "reason": job.reason})
        self.may_download = job.has_downloads and self.status == State.ACCEPTED
        self.outputs_cancelled = job.outputs_cancelled_at is not None
        match self.status:
            case State.ACCEPTED:
                return self._bring_up(job)
            case State.RUNNING:
                return self._watch(job, seen)
            case _:
                return self._finish(job, seen)

    # -- accepted: start it --------------------------------------------------------------------------------

    def _bring_up(self, job: Job) -> Standing | None:
        container = self._container.find()
        if container is None and self._job_start.may_have_run:
            return self._decide(LOST), None
        if container is None or not container.has_run:
            if not self._job_start.start(job, is_requested=container is not None and container.phase == "starting"):
                return None
            began = time.monotonic()
            container = self._container.inspect()
            self.deadline = began + job.timeout_seconds
            self._seen_running = container.phase == "running"
        # The engine has no start time if it was killed in the middle of the start and found the process alive after its restart.
        started_at = container.started_at or container.finished_at or self._engine_clock()
        outcome = self._outcome(container, job)
        with short_transaction():
            job = lifecycle.started(self.claim, started_at)
            if outcome:
                job = self._decide(outcome)
        return job, container

    # -- running: its log, and the decision ----------------------------------------------------------------

    def _watch(self, job: Job, seen: Observation | None) -> Standing | None:
        # A job whose time is up does not wait for an engine that is frozen.
        if self.overdue and self._seen_running and self._container.is_engine_silent(self._intervals.run.last_look):
            return self._time_out(job), None
        container = seen or self._container.find()
        if outcome := self._outcome(container, job):
            return self._decide(outcome), container
        self._seen_running = True
        if self.disk_excess:
            return lifecycle.decide(self.claim, State.FAILED, Reason.DISK, self.disk_excess), container
        if self.deadline is None and job.started_at is not None:
            ran = (self._engine_clock() - job.started_at).total_seconds()
            self.deadline = time.monotonic() + job.timeout_seconds - ran
        if self.overdue:
            return self._time_out(job), container
        self._follow_until_ended(job)
        return None

    def _outcome(self, container: Observation | None, job: Job) -> Outcome | None:
        """Return how the job ends; None while its process runs. One that has failed may have done so for want of space."""
        outcome = outcome_of(container, job.memory_mib)
        if outcome is None or outcome.reason != Reason.EXIT_CODE:
            return outcome
        excess = self.disk_excess or self._disk.excess_of_ended(self._container.name)
        return replace(outcome, reason=Reason.DISK, error=excess) if excess else outcome

    def _decide(self, outcome: Outcome) -> Job:
        return lifecycle.decide(
            self.claim,
            outcome.status,
            outcome.reason,
            outcome.error,
            exit_code=outcome.exit_code,
            ended=outcome.ended_at,
            usage=outcome.usage,
        )

    def _follow_until_ended(self, job: Job) -> None:
        self._close_follower()  # an earlier one, which does not know what this one commits
        try:
            if job.log_full and not job.wants_logs:
                self._container.wait()
            else:
                follower = self._log_follower(job)
                follower.follow()
                self._follower = follower  # reads on after the decision, where it stopped
        except ContainerNotFound:
            return  # the next step decides the job
        except EngineRefused as error:  # the process runs on, although its log cannot be read
            self._log(logging.ERROR, f"the engine cannot read the log: {error}")
            self._container.wait()

    def _close_follower(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._follower = None

    def _time_out(self, job: Job) -> Job:
        return lifecycle.decide(self.claim, State.FAILED, Reason.TIMEOUT, f"timed out after {job.timeout_seconds} s")

    # -- decided: the rest of the log, outputs, the end ----------------------------------------------------

    def _finish(self, job: Job, seen: Observation | None) -> Standing | None:
        container = seen or self._container.find()
        if job.started_at is None or container is None or not container.has_run:
            if container is not None:  # cancelled while it started: it may run
                self._container.stop()
            self._container.remove()
            lifecycle.conclude(self.claim)
            return None
        if job.exited_at is None:
            job = self._exit(job, container)
            if job.completed_at is None:
                return job, container
        else:
            if job.status != State.CANCELLED:
                self._files.handle_outputs(job)
            job = lifecycle.completed(self.claim)
        self._container.remove()
        return job, None

    def _exit(self, job: Job, container: Observation) -> Job:
        if container.phase == "running":
            self._container.stop(at_once=job.reason == Reason.DISK)  # else it would go on filling the disk
            container = self._container.inspect()
        follower, self._follower = self._follower or self._log_follower(job), None
        with closing(follower):
            follower.read_rest()
        exit_code = NO_EXIT_CODE if container.lost else container.exit_code
        with short_transaction():
            job = lifecycle.exited(self.claim, exit_code if job.exit_code is None else job.exit_code, container.usage)
            if not job.has_outputs:
                job = lifecycle.completed(self.claim)
        return job

    # -- what the steps share ------------------------------------------------------------------------------

    def _log_follower(self, job: Job) -> LogFollower:
        limits, intervals = self._configuration, self._intervals.log
        engine_limit = None if self._engine.traits.finds_log_positions else limits.engine_log_limit
        writer = LogWriter(self.claim, job, log_limit=limits.log_limit, engine_log_limit=engine_limit, intervals=intervals)
        return LogFollower(self._engine, self._container.name, writer, self.interrupt, intervals)

    def _give_up(self) -> None:
        """End the job after too many unexpected errors, so that no bug holds it forever."""
        error = "internal error; the service's log has the details"
        try:
            if self.status == State.ACCEPTED:
                lifecycle.decide(self.claim, State.FAILED, Reason.START_FAILED, error, exit_code=NO_EXIT_CODE)
            elif self.status == State.RUNNING:
                lifecycle.decide(self.claim, State.FAILED, Reason.ENGINE_LOST, error, exit_code=NO_EXIT_CODE)
            else:
                self._container.remove()
                lifecycle.conclude(self.claim)
        except (JobError, *DATABASE_UNAVAILABLE) as failure:
            self._log(logging.WARNING, f"cannot give up yet: {failure}")

    def _log(self, level: int, message: str, *, exc_info: bool = False) -> None:
        logger.log(level, message, exc_info=exc_info)


def _is_ready_to_upload(job: Job) -> bool:
    """Return whether the next step is to upload its outputs, which may take long."""
    ended = job.exited_at is not None and job.status != State.CANCELLED
    return ended and job.has_uploads and job.outputs_cancelled_at is None
