"""From a claimed job to a running process: image, container, inputs, start."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from django.db.models import Q

from jobs import lifecycle, start_breaker
from jobs.engine.protocol import Engine
from jobs.errors import (
    ContainerNotFound,
    EngineInTrouble,
    EngineRefused,
    EngineUnavailable,
    ImageUnavailable,
    NetworkMissing,
    SandboxRefused,
    StartFailed,
    StartLost,
    StartRefused,
)
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.running.claimed_container import ClaimedContainer
from jobs.running.job_files import InputFailed, JobFiles
from jobs.running.registry_guard import check_registry
from jobs.states import NO_EXIT_CODE, Reason, State
from orchestrator_site.base.db.encryption import Unreadable
from orchestrator_site.base.intervals import JobIntervals
from orchestrator_site.base.values.image_patterns import ImagePattern, is_allowed

_MAX_VANISHED: Final = 20  # times that an image is deleted between its pull and its use, before the job fails


class JobStart:
    """The start of the process of one accepted job. Each step may be repeated."""

    def __init__(
        self,
        claim: Claim,
        engine: Engine,
        node: Node,
        container: ClaimedContainer,
        files: JobFiles,
        interrupt: Interrupt,
        *,
        images_allow: tuple[ImagePattern, ...],
        pull_timeout: float,
        intervals: JobIntervals = JobIntervals(),
    ) -> None:
        """Prepare a start. `interrupt` ends the pull, `pull_timeout` is in seconds, `images_allow` is IMAGES_ALLOW."""
        self._claim = claim
        self._engine = engine
        self._node = node
        self._container = container
        self._files = files
        self._interrupt = interrupt
        self._images_allow = images_allow
        self._pull_timeout = pull_timeout
        self._check_registry = partial(check_registry, timeout=intervals.run.registry_lookup)
        self._claim_intervals = intervals.claim
        self._image_vanished = 0  # times
        self._is_created = False  # the container, by this owner
        self.is_waiting = False  # for an engine that schedules
        self.may_have_run = False  # the process, or it still does

    def start(self, job: Job, *, is_requested: bool = False) -> bool:
        """Return True if the process was started, False if the job was decided or requeued instead.

        With `is_requested` an earlier try, or an earlier owner, has asked the engine for the start: only wait for it.

        Raise temporary errors of the engine and of the lifecycle: call it again. `ContainerNotFound` means that the container was
        removed before it ran.
        """
        self.may_have_run = is_requested  # otherwise what there is has not run
        try:
            if not is_requested:
                self._request(job)
            with self._waiting():
                self._container.wait_until_started(self._report_waiting)
        except ImageUnavailable as error:
            self._fail(Reason.IMAGE_PULL, error)
        except ContainerNotFound:
            self._is_created = self.may_have_run = False
            raise
        except SandboxRefused:
            return self.start(job)  # without a sandbox
        except NetworkMissing:
            self._container.renew_network()
            raise
        except (EngineRefused, StartFailed) as error:
            self._fail(Reason.START_FAILED, error)
        except StartLost as error:
            self._fail(Reason.ENGINE_LOST, error)
        except Unreadable:
            lifecycle.report_progress(self._claim, "a worker with the key of its secrets: this one cannot decrypt them")
            raise
        except InputFailed as error:
            lifecycle.input_failed(self._claim, error.item, error.code, str(error), error.seconds)
        except StartRefused as error:
            self._is_created = False  # a container of a cluster is started only once
            self._report_refusal(error)
        except EngineInTrouble as error:
            self._report_refusal(error)
        else:
            return True
        return False

    def _request(self, job: Job) -> None:
        # An engine that schedules may have let the container of an earlier try wait for hours: it keeps its place.
        if not (self._is_created and self._engine.traits.schedules):
            self._create_container(job)
            self._is_created = True
        with self._waiting():
            self._container.prepare(self._report_waiting)
        if job.has_inputs or not self._engine.traits.makes_workspace:
            self._files.put_inputs(job)
        lifecycle.report_prepared(self._claim, "starting")  # the fence: a late owner does not get past this write
        self.may_have_run = True  # even if there is no answer
        self._container.start()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False

    def _report_waiting(self, reason: str) -> None:
        lifecycle.report_progress(self._claim, reason)

    def _create_container(self, job: Job) -> None:
        if not is_allowed(job.image, self._images_allow):  # IMAGES_ALLOW may have changed since the job was created
            raise ImageUnavailable("no pattern in IMAGES_ALLOW matches the image")
        if self._engine.needs_pull(job.image, job.pull_policy):
            lifecycle.report_progress(self._claim, f"pulling {job.image}")
            self._engine.ensure_image(job.image, job.pull_policy, self._pull_timeout, self._interrupt, self._check_registry)
            lifecycle.report_pulled(self._claim, "creating the container")
        try:
            self._container.create(job)
        except ImageUnavailable as error:
            self._image_vanished += 1
            if self._image_vanished >= _MAX_VANISHED:
                raise
            # If it cannot be pulled again, the next try reports it.
            raise EngineUnavailable(f"the image was deleted after its pull: {error}") from error

    def _report_refusal(self, error: StartRefused | EngineInTrouble) -> None:
        """Fail the job or requeue it, as the node's start breaker decides; raise `error` to try again."""
        guard = self._claim.guard & Q(status=State.ACCEPTED)
        certain = isinstance(error, EngineInTrouble)
        words = str(error) if isinstance(error, EngineInTrouble) else error.words
        match start_breaker.record_failure(
            self._claim.uuid, guard, self._node.pk, words, certain=certain, intervals=self._claim_intervals
        ):
            case "retry":
                raise error
            case "requeue":
                self._container.withdraw()  # if its process has run after all, the next look at it goes on with that
                lifecycle.requeue(self._claim)
            case "give up":
                self._fail(Reason.START_FAILED, error)

    def _fail(self, reason: Reason, error: Exception) -> None:
        lifecycle.decide(self._claim, State.FAILED, reason, str(error), exit_code=NO_EXIT_CODE)
