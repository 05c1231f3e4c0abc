"""The files of one job: into its container before the process starts, out of it after the process has ended."""

import time
from base64 import b64decode
from typing import TypeVar

from jobs import lifecycle, transfers
from jobs.engine.protocol import Engine
from jobs.errors import ContainerNotFound, DiskFull, EngineRefused, ErrorCode, JobError, TransferFailed
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.models import Input, Job, Output
from jobs.states import InputType, OutputType, TransferStatus
from orchestrator_site.base.config.configuration import Configuration
from orchestrator_site.base.db.postgresql import answer_limit
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, short_read

_TELL_SECONDS = 2.0
_TELL_AGAIN_SECONDS = 30.0  # after the database did not answer

_Item = TypeVar("_Item", Input, Output)


class InputFailed(JobError):
    """This input cannot be brought in, so the job cannot run. `seconds` is how long it was tried."""

    def __init__(self, item: Input, error: TransferFailed | DiskFull, seconds: float) -> None:
        super().__init__(str(error))
        self.item = item
        self.code = ErrorCode.DOWNLOAD_FAILED if isinstance(error, DiskFull) else error.code
        self.seconds = seconds


class JobFiles:
    """What one owner of a job carries. `container` is the name of its container."""

    def __init__(self, claim: Claim, engine: Engine, container: str, configuration: Configuration, interrupt: Interrupt) -> None:
        self._claim = claim
        self._engine = engine
        self._container = container
        self._configuration = configuration
        self._interrupt = interrupt
        self._no_room_since: float | None = None  # on the monotonic clock
        self._seconds_for_outputs = configuration.transfer_timeout  # that are left for all of them
        self._begun: Output | None = None  # the output that is being taken out
        self._began = 0.0  # when the input or output under way was begun, on the monotonic clock

    def bring_in(self, job: Job) -> None:
        """Put all inputs into the created container, those of an earlier try again.

        Raises `InputFailed`, what the engine's calls and the lifecycle's raise, and `DiskFull` for as long as TRANSFER_TIMEOUT.
        """
        place = self._place(job)
        transfers.prepare_workspace(place)
        limits = self._limits(self._configuration.transfer_timeout)
        items = _items(job, Input)
        steps = [_step(item) for item in items]
        if steps:
            lifecycle.doing(self._claim, steps[0])
        for item, following in zip(items, [*steps, "starting"][1:], strict=True):
            self._began = time.monotonic()
            try:
                size = self._bring_one_in(place, item, limits)
            except DiskFull as error:
                self._wait_for_room(item, error)
                raise
            except TransferFailed as error:
                raise InputFailed(item, error, self._seconds) from error
            lifecycle.input_done(self._claim, item, size, following, self._seconds)
        self._no_room_since = None

    def take_out(self, job: Job) -> None:
        """Handle all outputs that no earlier try has handled. Raises what the engine's calls and the lifecycle's raise.

        They share one TRANSFER_TIMEOUT, which time spent elsewhere (an engine that is away) does not use up. Where they
        were cancelled, the one that was under way fails and the others stay pending.
        """
        if job.outputs_cancelled_at is not None:
            if self._begun is not None:
                code = ErrorCode.UPLOAD_FAILED if self._begun.type == OutputType.UPLOAD else ErrorCode.ARTIFACT_READ_FAILED
                lifecycle.output_failed(self._claim, self._begun, code, "cancelled", self._seconds)
            return
        pending = [item for item in _items(job, Output) if item.status == TransferStatus.PENDING]
        if not pending:
            return
        began = time.monotonic()
        limits = self._limits(self._seconds_for_outputs)
        try:
            self._take_all_out(self._place(job), pending, limits)
        finally:
            self._seconds_for_outputs -= time.monotonic() - began

    def _take_all_out(self, place: transfers.Workspace, items: list[Output], limits: transfers.TransferLimits) -> None:
        for item in items:
            self._interrupt.check()
            self._begun, self._began = item, time.monotonic()
            try:
                self._take_one_out(place, item, limits)
            except TransferFailed as error:
                lifecycle.output_failed(self._claim, item, error.code, str(error), self._seconds)
            except (EngineRefused, ContainerNotFound) as error:
                lifecycle.output_failed(self._claim, item, ErrorCode.ARTIFACT_READ_FAILED, str(error), self._seconds)
            self._begun = None

    def _wait_for_room(self, item: Input, error: DiskFull) -> None:
        """Say so; raise `InputFailed` where it has lasted for TRANSFER_TIMEOUT."""
        now = time.monotonic()
        self._no_room_since = self._no_room_since or now
        if now - self._no_room_since >= self._configuration.transfer_timeout:
            raise InputFailed(item, error, now - self._no_room_since) from error
        lifecycle.doing(self._claim, "room on the worker's disk")

    def _bring_one_in(self, place: transfers.Workspace, item: Input, limits: transfers.TransferLimits) -> int:
        if item.type == InputType.FILE:
            content = b64decode(item.content)
            transfers.put_file(place, item.path, content, item.mode)
            return len(content)
        return transfers.put_download(
            place,
            item.path,
            item.url,
            item.headers,
            item.sha256 or None,
            item.mode,
            limits=limits,
            interrupt=self._interrupt,
            progress=_Teller(self._claim, item),
        )

    def _take_one_out(self, place: transfers.Workspace, item: Output, limits: transfers.TransferLimits) -> None:
        if item.type == OutputType.UPLOAD:
            size = transfers.upload_file(
                place, item.path, item.url, item.method, item.headers, limits=limits, interrupt=self._interrupt
            )
            lifecycle.output_done(self._claim, item, size, self._seconds)
        else:
            size, content = transfers.read_event_content(place, item.path)
            lifecycle.output_done(self._claim, item, size, self._seconds, content)

    @property
    def _seconds(self) -> float:
        """How long the input or output under way has taken so far: what an owner before this one did is not counted."""
        return time.monotonic() - self._began

    def _place(self, job: Job) -> transfers.Workspace:
        user = self._engine.resolve_user(self._container)
        return transfers.Workspace(self._engine, self._container, job.workspace, user)

    def _limits(self, seconds: float) -> transfers.TransferLimits:
        return transfers.TransferLimits(
            size=self._configuration.transfer_limit,
            deadline=time.monotonic() + seconds,
            spool_directory=self._configuration.state_dir / "spool",
        )


class _Teller:
    """Says in the job's row how far a download is, now and then. Called for every chunk."""

    def __init__(self, claim: Claim, item: Input) -> None:
        self._claim = claim
        self._item = item
        self._due = time.monotonic() + _TELL_SECONDS

    def __call__(self, stage: transfers.Stage, done: int, total: int | None) -> None:
        """Raises `OwnershipLost`, which ends the download. A database that is away does not."""
        if time.monotonic() < self._due:
            return
        pause = _TELL_SECONDS
        try:
            with answer_limit(_TELL_SECONDS):
                lifecycle.doing(self._claim, transfers.describe_progress(stage, self._item.name, self._item.path, done, total))
        except DATABASE_UNAVAILABLE:
            pause = _TELL_AGAIN_SECONDS
        self._due = time.monotonic() + pause


def _step(item: Input) -> str:
    return transfers.describe_progress("copying" if item.type == InputType.FILE else "downloading", item.name, item.path)


def _items(job: Job, model: type[_Item]) -> list[_Item]:
    with short_read():
        return list(model.objects.filter(job=job))
