"""The steps of one job: look at the row and at the engine, do the next step, commit it, go on.

`Run.drive` may be started at any point of a job's life, and be killed after any line: started from nothing it
creates the container; started after a crash it finds it by its labels and goes on from the committed log cursor.
"""

import logging
import random
import time
from collections.abc import Callable
from datetime import datetime

from django.db.models import Q

from jobs import lifecycle, start_breaker
from jobs.engine.protocol import Engine, Observation
from jobs.errors import (
    ContainerNotFound,
    EngineInTrouble,
    EngineRefused,
    EngineSilent,
    EngineUnavailable,
    ImageUnavailable,
    Interrupted,
    JobError,
    NetworkMissing,
    OwnershipLost,
    StartFailed,
    StartLost,
    StartRefused,
)
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.logs.log_follower import LogFollower
from jobs.logs.log_writer import LogWriter
from jobs.models import Job, Node
from jobs.running import job_network
from jobs.running.claimed_container import Container
from jobs.running.job_files import InputFailed, JobFiles
from jobs.running.registry_guard import check_registry
from jobs.states import NO_EXIT_CODE, Reason, State
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, short_read
from orchestrator_site.base.values.image_patterns import is_allowed

logger = logging.getLogger(__name__)

_OOM_EXIT_CODE = 137
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries while the engine or the database does not answer
_VANISHED_LIMIT = 20  # so many times between its pull and its use, and it is not to be had
_UNEXPECTED_LIMIT = 5  # so many errors that nobody foresaw, in a row, and the job is given up
_LAST_LOOK_SECONDS = 3.0  # for a silent engine to say whether a process whose time is up has ended by itself
_WELL_SECONDS = 60.0  # a process that was watched for so long went well: what fails then begins a row of its own


class Run:
    """One worker thread's work on one job that it has claimed."""

    def __init__(
        self,
        claim: Claim,
        engine: Engine,
        instance: str,
        configuration: Configuration,
        node: Node,
        engine_clock: Callable[[], datetime],
    ) -> None:
        self.claim = claim
        self.interrupt = Interrupt()
        self.deadline: float | None = None  # of the process, on this machine's monotonic clock
        self.status = State.ACCEPTED  # as last read, as the next two
        self.may_download = True  # it has not started, and is not known to have nothing to download
        self.outputs_cancelled = False
        self.letting_go = False
        self.began = time.monotonic()
        self._image_vanished = 0  # times
        self._seen_running = False  # by this owner
        self._engine = engine.bound(self.interrupt)
        # An engine may undo a start that its caller broke off, and the next owner would then run the job twice; and a
        # stop that was decided is not to be taken back. Their time-outs bound both.
        self._uninterrupted = engine
        self._engine_clock = engine_clock
        self._instance = instance
        self._node = node
        self._configuration = configuration
        self._job_id = str(claim.uuid)  # the client's, once read
        self._container = Container(engine, claim, instance, configuration, node, self.interrupt)
        self._files = JobFiles(claim, self._engine, self._container.name, configuration, self.interrupt)

    def let_go(self) -> None:
        """Return soon and leave the job, its container running, to the next owner."""
        self.letting_go = True
        self.interrupt.wake()

    @property
    def overdue(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def drive(self, *, sending: bool = False) -> bool:
        """Bring the job to its end, or, unless `sending`, to where it has files to upload: True says that these are left.

        Returns before either only where it is ours no more or `let_go` was called.
        """
        failures = unexpected = 0  # in a row
        while not self.letting_go:
            self.interrupt.clear()
            if self.letting_go:
                return False
            began = time.monotonic()
            try:
                job = self._read()
                if job is None:
                    return False
                if not sending and _is_to_upload(job):
                    return True
                self._advance(job)
                failures = unexpected = 0
            except (OwnershipLost, Interrupted):
                failures = unexpected = 0
            except Exception as error:
                # Only while it runs, which its time-out bounds: another step may take long each time that it fails.
                if self.status == State.RUNNING and time.monotonic() - began > _WELL_SECONDS:
                    failures = unexpected = 0
                if _is_temporary(error):
                    self._log(logging.WARNING, f"trying again: {error}")
                    self._pause(failures)
                    failures += 1
                    continue
                self._log(logging.ERROR, "an unexpected error in a run", exc_info=True)
                unexpected += 1
                self._pause(unexpected)
                if unexpected >= _UNEXPECTED_LIMIT:
                    unexpected = 0
                    self._give_up()
        return False

    def _read(self) -> Job | None:
        """The row, where it is still ours and not at its end."""
        with short_read():
            job = Job.objects.filter(self.claim.guard, uuid=self.claim.uuid, completed_at=None).first()
        if job is not None:
            self.status, self._job_id = State(job.status), job.id
            self.may_download = job.has_downloads and self.status == State.ACCEPTED
            self.outputs_cancelled = job.outputs_cancelled_at is not None
        return job

    def _advance(self, job: Job) -> None:
        match self.status:
            case State.ACCEPTED:
                self._bring_up(job)
            case State.RUNNING:
                self._watch(job)
            case _:
                self._finish(job)

    # -- accepted: a container that runs --------------------------------------------------------------

    def _bring_up(self, job: Job) -> None:
        seen = self._container.find()
        if seen is None or seen.phase == "created":
            try:
                self._prepare(job)
                lifecycle.doing(self.claim, "starting")  # the fence: a late owner does not get past it
                self._uninterrupted.start(self._container.name)
            except ImageUnavailable as error:
                lifecycle.decide(self.claim, State.FAILED, Reason.IMAGE_PULL, str(error), exit_code=NO_EXIT_CODE)
                return
            except NetworkMissing:
                job_network.renew(self._engine, self._node, self._instance)
                raise
            except (EngineRefused, StartFailed) as error:
                lifecycle.decide(self.claim, State.FAILED, Reason.START_FAILED, str(error), exit_code=NO_EXIT_CODE)
                return
            except (StartRefused, EngineInTrouble) as error:
                self._refused(error)
                return
            except StartLost as error:
                lifecycle.decide(self.claim, State.FAILED, Reason.ENGINE_LOST, str(error), exit_code=NO_EXIT_CODE)
                return
            except InputFailed as error:
                lifecycle.input_failed(self.claim, error.item, error.code, str(error), error.seconds)
                return
            began = time.monotonic()
            seen = self._engine.inspect(self._container.name)
            self.deadline = began + job.timeout_seconds
            self._seen_running = seen.phase == "running"
        # The engine may not know when: one that was killed in that moment, and found the process alive when it was back.
        lifecycle.started(self.claim, seen.started_at or seen.finished_at or self._engine_clock())

    def _refused(self, error: StartRefused | EngineInTrouble) -> None:
        """End the job or put it back; raise `error` to try again."""
        guard = self.claim.guard & Q(status=State.ACCEPTED)
        certain = isinstance(error, EngineInTrouble)
        words = str(error) if isinstance(error, EngineInTrouble) else error.words
        match start_breaker.refused(self.claim.uuid, guard, self._node.pk, words, certain=certain):
            case "try again":
                raise error
            case "put back":
                self._container.remove()
                lifecycle.put_back(self.claim)
            case "give up":
                lifecycle.decide(self.claim, State.FAILED, Reason.START_FAILED, str(error), exit_code=NO_EXIT_CODE)

    def _prepare(self, job: Job) -> None:
        lifecycle.doing(self.claim, f"pulling {job.image}")
        self._make_container(job)
        self._files.bring_in(job)

    def _make_container(self, job: Job) -> None:
        if not is_allowed(job.image, self._configuration.images_allow):  # it may have been posted under another IMAGES_ALLOW
            raise ImageUnavailable("no pattern in IMAGES_ALLOW matches the image")
        self._engine.ensure_image(job.image, job.pull_policy, self._configuration.pull_timeout, self.interrupt, check_registry)
        lifecycle.doing(self.claim, "creating the container")
        try:
            self._engine.create(self._container.spec(job))
        except ImageUnavailable as error:
            self._image_vanished += 1
            if self._image_vanished >= _VANISHED_LIMIT:
                raise
            # Somebody has deleted it since: where it cannot be had again, that will be said next.
            raise EngineUnavailable(f"the image is gone again: {error}") from error

    # -- running: its log, and the decision ---------------------------------------------------------------

    def _watch(self, job: Job) -> None:
        if self.overdue and self._seen_running and self._engine_is_silent():
            self._decide_timeout(job)
            return
        seen = self._container.find()
        if self._decide(job, seen):
            return
        self._seen_running = True
        if self.deadline is None and job.started_at is not None:
            ran = (self._engine_clock() - job.started_at).total_seconds()
            self.deadline = time.monotonic() + job.timeout_seconds - ran
        if self.overdue:
            self._decide_timeout(job)
            return
        try:
            if job.log_full and not job.wants_logs:
                self._engine.wait(self._container.name, self.interrupt)
            else:
                self._log_follower(job).follow()
        except ContainerNotFound:
            return  # looked at again, and decided
        except EngineRefused as error:  # it cannot read its own log: the process runs on all the same
            self._log(logging.ERROR, f"the engine cannot read the log: {error}")
            self._engine.wait(self._container.name, self.interrupt)

    def _engine_is_silent(self) -> bool:
        """Whether it says nothing for seconds, as a frozen one does: a job whose time is up does not wait for it."""
        try:
            self._uninterrupted.bound(Interrupt(), _LAST_LOOK_SECONDS).inspect(self._container.name)
        except EngineSilent:
            return True
        except JobError:  # whatever it says, it answers
            return False
        return False

    def _decide_timeout(self, job: Job) -> None:
        lifecycle.decide(self.claim, State.FAILED, Reason.TIMEOUT, f"it ran for longer than {job.timeout_seconds} s")

    def _decide(self, job: Job, seen: Observation | None) -> bool:
        """Commit what the engine says of an ended process; False while it runs."""
        if seen is None or seen.phase == "created":
            lifecycle.decide(self.claim, State.FAILED, Reason.ENGINE_LOST, "the container is gone", exit_code=NO_EXIT_CODE)
            return True
        if seen.phase == "running":
            return False
        if seen.lost:
            error = "its engine or the host was restarted: what ended the process, and how, cannot be known"
            lifecycle.decide(self.claim, State.FAILED, Reason.ENGINE_LOST, error, exit_code=NO_EXIT_CODE, ended=seen.finished_at)
            return True
        code = NO_EXIT_CODE if seen.exit_code is None else seen.exit_code
        if code == 0:
            lifecycle.decide(self.claim, State.COMPLETED, None, exit_code=code, ended=seen.finished_at)
        elif seen.oom_killed and code == _OOM_EXIT_CODE:
            error = f"it needed more than its {job.memory_mib} MiB of memory"
            lifecycle.decide(self.claim, State.FAILED, Reason.OOM, error, exit_code=code, ended=seen.finished_at)
        else:
            error = f"exit code {code}: {seen.wrong_platform}" if seen.wrong_platform else f"exit code {code}"
            lifecycle.decide(self.claim, State.FAILED, Reason.EXIT_CODE, error, exit_code=code, ended=seen.finished_at)
        return True

    # -- decided: the rest of the log, outputs, the end ------------------------------------------------------

    def _finish(self, job: Job) -> None:
        seen = self._container.find()
        if job.started_at is None or seen is None or seen.phase == "created":
            if seen is not None:  # cancelled just as it started: it may run, and is stopped as any other
                self._uninterrupted.stop(self._container.name, self._configuration.shutdown_grace)
            self._container.remove()
            lifecycle.concluded(self.claim)
            return
        if job.exited_at is None:
            self._exit(job, seen)
            if job.has_uploads:
                return  # looked at again: others may send them
        if job.status != State.CANCELLED:
            self._files.take_out(job)
        lifecycle.completed(self.claim)
        self._container.remove()

    def _exit(self, job: Job, seen: Observation) -> None:
        if seen.phase == "running":
            self._uninterrupted.stop(self._container.name, self._configuration.shutdown_grace)
            seen = self._engine.inspect(self._container.name)
        self._log_follower(job).read_rest()
        seen_code = NO_EXIT_CODE if seen.lost else seen.exit_code
        lifecycle.exited(self.claim, seen_code if job.exit_code is None else job.exit_code)

    # -- what the steps share -----------------------------------------------------------------------------

    def _log_follower(self, job: Job) -> LogFollower:
        limits = self._configuration
        writer = LogWriter(self.claim, job, log_limit=limits.log_limit, engine_log_limit=limits.engine_log_limit)
        return LogFollower(self._engine, self._container.name, writer, self.interrupt)

    def _pause(self, failures: int) -> None:
        try:  # not all at once: what fails many jobs together may be that they all want it
            self.interrupt.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)] * random.uniform(0.7, 1.3))  # noqa: S311
        except Interrupted:
            return

    def _give_up(self) -> None:
        """Errors that nobody foresaw do not hold a job for ever: it ends, and says so."""
        error = "an internal error of the service; its log has the details"
        try:
            if self.status == State.ACCEPTED:
                lifecycle.decide(self.claim, State.FAILED, Reason.START_FAILED, error, exit_code=NO_EXIT_CODE)
            elif self.status == State.RUNNING:
                lifecycle.decide(self.claim, State.FAILED, Reason.ENGINE_LOST, error, exit_code=NO_EXIT_CODE)
            else:
                self._container.remove()
                lifecycle.concluded(self.claim)
        except (JobError, *DATABASE_UNAVAILABLE) as failure:
            self._log(logging.WARNING, f"cannot give up yet: {failure}")

    def _log(self, level: int, message: str, exc_info: bool = False) -> None:
        logger.log(level, message, exc_info=exc_info, extra={"job": self._job_id, "container": self._container.name})


def _is_temporary(error: Exception) -> bool:
    return isinstance(error, DATABASE_UNAVAILABLE) or (isinstance(error, JobError) and error.retry)


def _is_to_upload(job: Job) -> bool:
    """Whether the next step is that its outputs are sent to their receivers, which may take long."""
    ended = job.exited_at is not None and job.status != State.CANCELLED
    return ended and job.has_uploads and job.outputs_cancelled_at is None
