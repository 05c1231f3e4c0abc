"""Puts the inputs of one job into its container before the start, and handles its outputs after the end."""

import time
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from jobs import lifecycle, transfers
from jobs.engine.protocol import Engine
from jobs.errors import ContainerNotFound, DiskFull, EngineRefused, ErrorCode, JobError, TransferFailed
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.models import Input, Job, Output
from jobs.states import InputType, OutputType, TransferStatus
from orchestrator_site.base.db.bounded_connections import answer_limit
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, short_read
from orchestrator_site.base.intervals import JobIntervals, RunIntervals

_Item = TypeVar("_Item", Input, Output)


class InputFailed(JobError):
    """An input failed after `seconds`, so the job cannot run. The text is that of the error that made it fail."""

    def __init__(self, item: Input, error: TransferFailed | DiskFull, seconds: float) -> None:
        super().__init__(str(error))
        self.item = item
        self.code = ErrorCode.DOWNLOAD_FAILED if isinstance(error, DiskFull) else error.code
        self.seconds = seconds


class JobFiles:
    """The transfers of one job while one worker owns it."""

    def __init__(
        self,
        claim: Claim,
        engine: Engine,
        container: str,
        interrupt: Interrupt,
        *,
        timeout: float,
        size_limit: int,
        disk_limit: int,
        spool_directory: Path,
        intervals: JobIntervals = JobIntervals(),
    ) -> None:
        """Prepare to move files into and out of the container with the name `container`.

        `timeout` is TRANSFER_TIMEOUT in seconds: all inputs share it, and so do all outputs. `size_limit` is in bytes, for
        each file; `disk_limit` for all inputs together.
        """
        self._claim = claim
        self._engine = engine
        self._container = container
        self._interrupt = interrupt
        self._timeout = timeout
        self._size_limit = size_limit
        self._disk_limit = disk_limit
        self._spool_directory = spool_directory
        self._intervals = intervals
        self._disk_full_since: float | None = None  # by `time.monotonic`
        self._seconds_for_outputs = timeout  # what is left of it
        self._current_output: Output | None = None
        self._current_began = 0.0  # when the current input or output was begun, by `time.monotonic`

    def put_inputs(self, job: Job) -> None:
        """Put all inputs into the created container, including those of an earlier try.

        Raise `InputFailed` if an input cannot be put in, `DiskFull` while the worker's disk is full, for at most
        TRANSFER_TIMEOUT, and whatever the engine's and the lifecycle's calls raise.
        """
        workspace = self._workspace(job)
        transfers.prepare_workspace(workspace)
        limits = self._limits(self._timeout)
        items = _items(job, Input) if job.has_inputs else []
        steps = [_step(item) for item in items]
        if steps:
            lifecycle.report_progress(self._claim, steps[0])
        left = self._disk_limit
        for item, following in zip(items, [*steps, "starting"][1:], strict=True):
            self._current_began = time.monotonic()
            try:
                size = self._put_input(workspace, item, _limited_to(left, limits))
            except DiskFull as error:
                self._report_disk_full(item, error)
                raise
            except TransferFailed as error:
                raise InputFailed(item, error, self._seconds) from error
            left -= size
            lifecycle.input_done(self._claim, item, size, following, self._seconds)
        self._disk_full_since = None

    def handle_outputs(self, job: Job) -> None:
        """Handle all outputs that no earlier try has handled. Raise whatever the engine's and the lifecycle's calls raise.

        Only the time spent here counts against their TRANSFER_TIMEOUT, not an engine outage. If they were cancelled, the current
        one fails and the others stay pending.
        """
        if job.outputs_cancelled_at is not None:
            if (item := self._current_output) is not None:
                code = ErrorCode.UPLOAD_FAILED if item.type == OutputType.UPLOAD else ErrorCode.ARTIFACT_READ_FAILED
                lifecycle.output_failed(self._claim, item, code, "cancelled", self._seconds)
            return
        pending = [item for item in _items(job, Output) if item.status == TransferStatus.PENDING]
        if not pending:
            return
        began = time.monotonic()
        limits = self._limits(self._seconds_for_outputs)
        try:
            self._handle_all(self._workspace(job), pending, limits)
        finally:
            self._seconds_for_outputs -= time.monotonic() - began

    def _handle_all(self, workspace: transfers.Workspace, items: list[Output], limits: transfers.TransferLimits) -> None:
        for item in items:
            self._interrupt.check()
            self._current_output, self._current_began = item, time.monotonic()
            try:
                self._handle_output(workspace, item, limits)
            except TransferFailed as error:
                lifecycle.output_failed(self._claim, item, error.code, str(error), self._seconds)
            except (EngineRefused, ContainerNotFound) as error:
                lifecycle.output_failed(self._claim, item, ErrorCode.ARTIFACT_READ_FAILED, str(error), self._seconds)
            self._current_output = None

    def _report_disk_full(self, item: Input, error: DiskFull) -> None:
        """Store what the job waits for; raise `InputFailed` if it has waited for TRANSFER_TIMEOUT."""
        now = time.monotonic()
        self._disk_full_since = self._disk_full_since or now
        if now - self._disk_full_since >= self._timeout:
            raise InputFailed(item, error, now - self._disk_full_since) from error
        lifecycle.report_progress(self._claim, "space on the worker's disk")

    def _put_input(self, workspace: transfers.Workspace, item: Input, limits: transfers.TransferLimits) -> int:
        if item.type == InputType.FILE:
            content = b64decode(item.content)
            transfers.put_file(workspace, item.path, content, item.mode, limits=limits)
            return len(content)
        return transfers.put_download(
            workspace,
            item.path,
            item.url,
            item.headers,
            item.sha256 or None,
            item.mode,
            limits=limits,
            interrupt=self._interrupt,
            progress=_ProgressReport(self._claim, item, self._intervals.run),
        )

    def _handle_output(self, workspace: transfers.Workspace, item: Output, limits: transfers.TransferLimits) -> None:
        if item.type == OutputType.UPLOAD:
            size = transfers.upload_file(
                workspace, item.path, item.url, item.method, item.headers, limits=limits, interrupt=self._interrupt
            )
            lifecycle.output_done(self._claim, item, size, self._seconds)
        else:
            size, content = transfers.read_event_content(workspace, item.path)
            lifecycle.output_done(self._claim, item, size, self._seconds, content)

    @property
    def _seconds(self) -> float:
        """The seconds that the current input or output has taken under this owner."""
        return time.monotonic() - self._current_began

    def _workspace(self, job: Job) -> transfers.Workspace:
        user = self._engine.resolve_user(self._container)
        return transfers.Workspace(self._engine, self._container, job.workspace, user)

    def _limits(self, seconds: float) -> transfers.TransferLimits:
        return transfers.TransferLimits(
            size=self._size_limit,
            deadline=time.monotonic() + seconds,
            spool_directory=self._spool_directory,
            intervals=self._intervals.transfer,
        )


class _ProgressReport:
    """A callback that stores the progress of a download in the job's row from time to time. Called for every chunk."""

    def __init__(self, claim: Claim, item: Input, intervals: RunIntervals) -> None:
        self._claim = claim
        self._item = item
        self._intervals = intervals
        self._due = time.monotonic() + intervals.progress

    def __call__(self, stage: transfers.Stage, done: int, total: int | None) -> None:
        """Raise `OwnershipLost`, which ends the download, if the job is not ours any more. A database outage is ignored."""
        if time.monotonic() < self._due:
            return
        pause = self._intervals.progress
        try:
            with answer_limit(self._intervals.progress):
                lifecycle.report_progress(
                    self._claim, transfers.describe_progress(stage, self._item.name, self._item.path, done, total)
                )
        except DATABASE_UNAVAILABLE:
            pause = self._intervals.progress_retry
        self._due = time.monotonic() + pause


def _step(item: Input) -> str:
    return transfers.describe_progress("copying" if item.type == InputType.FILE else "downloading", item.name, item.path)


def _limited_to(left: int, limits: transfers.TransferLimits) -> transfers.TransferLimits:
    """Return the limits of one input if this number of bytes is left for all."""
    return replace(limits, size=left, is_rest=True) if left < limits.size else limits


def _items(job: Job, model: type[_Item]) -> list[_Item]:
    with short_read():
        return list(model.objects.filter(job=job))
