"""Changes a job's state: each change is one guarded UPDATE and the event that reports it, in one transaction.

The guard consists of the transition table and the claim: only the job's owner may change it, except for a cancel and a lost
node. If the UPDATE finds no row, another process was first, and the function raises `OwnershipLost`: the caller reads the row
again and does what it now requires. These functions change rows only; the engine is the caller's.

Times come from the engine or the database, never from the clock of this process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from jobs import events, node_hints, start_breaker
from jobs.engine.protocol import Usage
from jobs.errors import ErrorCode, OwnershipLost
from jobs.models import Input, Job, Node, Output
from jobs.states import DECIDED, NO_EXIT_CODE, UNDECIDED, Reason, State, TransferStatus, sources
from orchestrator_site.base import measurements
from orchestrator_site.base.db.returning import update_returning
from orchestrator_site.base.db.transactions import short_read, short_transaction

_MAX_ERROR_BYTES = 1000
_MAX_PROGRESS_LENGTH = 640
_LOST = "the job has another owner or is in another state"

UNOWNED = Q(owner=None)
_EXITED = Q(exited_at__isnull=False, completed_at=None)
_NOT_CLAIMED: dict[str, Any] = {"claimed_at": None, "pulled_at": None, "prepared_at": None}
_COMPLETE: dict[str, Any] = {"completed_at": Now(), "owner": None, "doing": ""}


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of a worker to drive a job, until another worker claims it."""

    uuid: UUID  # the job
    owner: UUID  # the worker
    number: int  # claims of a job are numbered from 1
    deaths: int = field(default=0, compare=False)  # of owners in a row, see `Job.owner_deaths`
    job: Job | None = field(default=None, compare=False, repr=False)  # the row, as the claim left it

    @property
    def guard(self) -> Q:
        """The condition that this claim is still valid."""
        return Q(owner=self.owner, claims=self.number)


@contextmanager
def changed(uuid: UUID, guard: Q, **values: Any) -> Iterator[Job]:
    """Change the job's row and yield the changed job, in a transaction that holds the row's lock.

    What the caller writes inside the block is committed with the change. Raise `OwnershipLost` if `guard` does not hold.
    """
    with short_transaction():
        for job in update_returning(Job.objects.filter(guard, uuid=uuid), **values):
            yield job
            return
        raise OwnershipLost(_LOST)


def storable_error(error: str) -> str:
    """Return an error as rows and events store it: at most 1 KiB, and without NUL, which PostgreSQL refuses."""
    return error.replace("\x00", "�").strip().encode(errors="replace")[:_MAX_ERROR_BYTES].decode(errors="ignore")


# -- before the process is started -------------------------------------------------------------------


def report_progress(claim: Claim, text: str) -> None:
    """Store what an accepted job is waiting for."""
    _report(claim, text)


def report_pulled(claim: Claim, text: str) -> None:
    """Store that the image of an accepted job was pulled, and what it is waiting for now."""
    _report(claim, text, pulled_at=Now())


def report_prepared(claim: Claim, text: str) -> None:
    """Store that only the start is missing. Also the fence before the start: a late owner does not get past this write."""
    _report(claim, text, prepared_at=Now())


def _report(claim: Claim, text: str, **values: Any) -> None:
    rows = Job.objects.filter(claim.guard, uuid=claim.uuid, status=State.ACCEPTED)
    with short_read():  # one statement, which is a transaction by itself
        if not rows.update(doing=text[:_MAX_PROGRESS_LENGTH], **values):
            raise OwnershipLost(_LOST)


def input_done(claim: Claim, item: Input, size: int, following: str, seconds: float) -> None:
    """Report an input that is in place after `seconds`; `following` is what is done next.

    The event is sent once, also if a new container gets the input again.
    """
    values = {"doing": following[:_MAX_PROGRESS_LENGTH], "input_bytes": _sum("input_bytes", item, size)}
    with changed(claim.uuid, claim.guard & Q(status=State.ACCEPTED), **values) as job:
        if _settle(item, TransferStatus.SUCCESS, size):
            events.input_finished(job, item, seconds)


def input_failed(claim: Claim, item: Input, code: ErrorCode, error: str, seconds: float) -> None:
    """Fail the job because of this input, after `seconds` of trying. Its container is never started."""
    with _decided(claim.uuid, claim.guard & Q(status=State.ACCEPTED), State.FAILED, Reason.INPUT_FAILED, error) as job:
        if _settle(item, TransferStatus.FAILED, None, error):
            events.input_finished(job, item, seconds, code)


def requeue(claim: Claim) -> None:
    """Requeue an accepted job whose node cannot start containers. Its container must have been removed."""
    with changed(claim.uuid, claim.guard & Q(status=State.ACCEPTED), owner=None) as job:
        _requeue(job)


def started(claim: Claim, started_at: datetime) -> Job:
    """Report that the process was started, at `started_at` by the engine's clock. It may have ended already. Return the row."""
    guard = claim.guard & Q(status__in=sources(State.RUNNING))
    with changed(claim.uuid, guard, status=State.RUNNING, started_at=started_at, owner_deaths=0, doing="") as job:
        events.started(job)
        transaction.on_commit(partial(measurements.job_started, job.created_at, started_at))
        if job.node_id is not None:
            start_breaker.record_success(job.node_id)
        return job


# -- deciding ----------------------------------------------------------------------------------------


@contextmanager
def _decided(uuid: UUID, guard: Q, status: State, reason: Reason | None, error: str = "", **values: Any) -> Iterator[Job]:
    """Decide the job if the transition table allows it, and yield the decided job as `changed` does."""
    values = {"finished_at": Now(), "owner_deaths": 0} | values
    guard &= Q(status__in=sources(status))
    with changed(uuid, guard, status=status, reason=reason or "", error=storable_error(error), doing="", **values) as job:
        _count_decision(job)
        yield job


def decide(
    claim: Claim,
    status: State,
    reason: Reason | None,
    error: str = "",
    *,
    exit_code: int | None = None,
    ended: datetime | None = None,
    usage: Usage | None = None,
) -> Job:
    """Decide a job, and return the row.

    `ended` is when its process ended. Without it the process may still run, because a time-out is decided before the engine
    stops the process; the job then keeps its reservation.
    """
    values: dict[str, Any] = {"exit_code": exit_code} | _used(usage)
    if ended is not None:
        values["finished_at"] = ended
    with _decided(claim.uuid, claim.guard, status, reason, error, **values) as job:
        if ended is not None:
            release(job)
        return job


def cancel(uuid: UUID) -> None:
    """Cancel an undecided job, whoever owns it; the owner then stops the process. Raise `OwnershipLost` if it is decided."""
    with _decided(uuid, Q(), State.CANCELLED, Reason.CANCELLED) as job:
        if job.node_id is None:  # no worker has it, so none would conclude it
            _conclude(job)


def cancel_outputs(uuid: UUID) -> None:
    """Cancel the remaining outputs of a decided job, whose status does not change. Its owner stops the upload in progress.

    Raise `OwnershipLost` if there is nothing to cancel: the job is not decided, was cancelled before, or is complete.
    """
    unfinished = Q(status__in=DECIDED - {State.CANCELLED}) & Q(completed_at=None, outputs_cancelled_at=None)
    with changed(uuid, unfinished, outputs_cancelled_at=Now()):
        pass


# -- after the process has ended ---------------------------------------------------------------------


def exited(claim: Claim, exit_code: int | None, usage: Usage | None = None) -> Job:
    """Report the end of the process and of its log, and return the row.

    `exit_code` and `usage` were unknown if the job was decided before its process ended.
    """
    guard = claim.guard & Q(exited_at=None) & ~Q(status__in=UNDECIDED)
    with changed(claim.uuid, guard, exited_at=Now(), exit_code=exit_code, owner_deaths=0, **_used(usage)) as job:
        release(job)
        _report_exit(job)
        return job


def output_done(claim: Claim, item: Output, size: int, seconds: float, content: str | None = None) -> None:
    """Report an output that was sent, in `seconds`. `content` is that of an `event` output, as JSON."""
    values: dict[str, Any] = {"owner_deaths": 0, "doing": "", "output_bytes": _sum("output_bytes", item, size)}
    with changed(claim.uuid, claim.guard & _EXITED, **values) as job:
        if _settle(item, TransferStatus.SUCCESS, size):
            events.output_finished(job, item, seconds, content=content)


def output_failed(claim: Claim, item: Output, code: ErrorCode, error: str, seconds: float) -> None:
    """Report an output that could not be sent, after `seconds` of trying. The job's status does not change."""
    with changed(claim.uuid, claim.guard & _EXITED, owner_deaths=0, doing="") as job:
        if _settle(item, TransferStatus.FAILED, None, error):
            events.output_finished(job, item, seconds, code)


def completed(claim: Claim) -> Job:
    """Complete a job: skip the outputs that are still pending, and end the claim. Return the row."""
    with changed(claim.uuid, claim.guard & _EXITED, **_COMPLETE) as job:
        _complete(job)
        return job


def conclude(claim: Claim) -> None:
    """Complete a decided job that never ran or whose container is gone, and send the events that are missing."""
    guard = claim.guard & Q(completed_at=None) & ~Q(status__in=UNDECIDED)
    with changed(claim.uuid, guard, owner=None) as job:
        _conclude(job)


def node_lost(uuid: UUID, node: Node) -> None:
    """End a job whose node is lost as `engine_lost`, or requeue it if it had not started.

    A job that waits in a cluster for its start may have started meanwhile, or may still do so: run elsewhere, it would run twice.

    Raise `OwnershipLost` if a worker of the node has claimed it by now.
    """
    unfinished = UNOWNED & Q(completed_at=None) & ~Q(node=None)
    with changed(uuid, unfinished, claims=F("claims") + 1) as job:
        may_run = job.status == State.RUNNING or (node.schedules and job.prepared_at is not None)
        if not job.decided and not may_run:
            _requeue(job)
            return
        if not job.decided:
            when = (
                "while the job ran"
                if job.status == State.RUNNING
                else "while the job waited for its start there: it may have run"
            )
            error = storable_error(f"the node {node.name} was lost {when}")
            _write(job, status=State.FAILED, reason=Reason.ENGINE_LOST, finished_at=Now(), error=error)
            _count_decision(job)
        _conclude(job)


def give_up(claim: Claim, error: str) -> Job:
    """End a job in any state without touching its container: even looking at it may be what kills its owners.

    The container is removed later as a leftover. Return the job.
    """
    with changed(claim.uuid, claim.guard & Q(completed_at=None), owner=None) as job:
        if not job.decided:
            reason = Reason.START_FAILED if job.status == State.ACCEPTED else Reason.ENGINE_LOST
            _write(job, status=State.FAILED, reason=reason, finished_at=Now(), error=storable_error(error))
            _count_decision(job)
        _conclude(job)
    return job


def release(job: Job) -> None:
    """Return the cpu and memory that a locked row has reserved to its node, once, and hint to the workers there."""
    if job.node_id is None or not job.reserved:
        return
    job.reserved = False
    Job.objects.filter(uuid=job.uuid).update(reserved=False)
    Node.objects.filter(pk=job.node_id).update(
        cpu_millis_reserved=F("cpu_millis_reserved") - job.cpu_millis,
        memory_mib_reserved=F("memory_mib_reserved") - job.memory_mib,
    )
    node_hints.hint_node_on_commit(job.node_id)


# -- parts of the changes above -----------------------------------------------------------------------


def _write(job: Job, **values: Any) -> None:
    """Change more values of a row that `changed` has locked, in the database and in `job`."""
    Job.objects.filter(uuid=job.uuid).update(**values)
    job.refresh_from_db(fields=list(values))


def _used(usage: Usage | None) -> dict[str, Any]:
    """Return the columns for what a container has used. What is unknown does not replace what was known before."""
    return {} if usage is None else {"cpu_seconds": usage.cpu_seconds, "peak_memory_bytes": usage.peak_memory_bytes}


def _sum(column: str, item: Input | Output, size: int) -> CombinedExpression | F:
    """Return a column with the size of a file added, unless that was done when the file was transferred before.

    Only the job's owner settles its files, so `item` is as it is in the database.
    """
    return F(column) + size if item.status == TransferStatus.PENDING else F(column)


def _count_decision(job: Job) -> None:
    """Count a decided job once the decision is committed."""
    transaction.on_commit(partial(measurements.job_decided, job.image, job.reason, job.started_at, job.finished_at))


def _report_exit(job: Job) -> None:
    """Send the `exit` event, and measure what the job has used, which is complete now."""
    events.exited(job)
    transaction.on_commit(partial(measurements.job_exited, job.image, job.cpu_seconds, job.peak_memory_bytes, job.memory_mib))


def _settle(item: Input | Output, status: TransferStatus, size: int | None, error: str = "") -> bool:
    """Store the result of a transfer; return False if it had one already."""
    item.status, item.bytes, item.error = status, size, storable_error(error)
    rows = type(item).objects.filter(pk=item.pk, status=TransferStatus.PENDING)
    return bool(rows.update(status=status, bytes=size, error=item.error))


def _requeue(job: Job) -> None:
    release(job)
    Job.objects.filter(uuid=job.uuid).update(owner=None, node=None, doing="", **_NOT_CLAIMED)
    node_hints.hint_for_job_on_commit(job)


def _conclude(job: Job) -> None:
    """End a decided job whose process and files cannot be reached."""
    release(job)
    if job.exited_at is None:
        _write(job, exited_at=Now(), exit_code=NO_EXIT_CODE if job.exit_code is None else job.exit_code)
        _report_exit(job)
    if job.started_at is not None and job.status != State.CANCELLED and job.outputs_cancelled_at is None:
        for item in job.outputs.filter(status=TransferStatus.PENDING):
            if _settle(item, TransferStatus.FAILED, None, "the container is gone, and its files with it"):
                events.output_finished(job, item, 0.0, ErrorCode.ARTIFACT_READ_FAILED)
    _write(job, **_COMPLETE)
    _complete(job)


def _complete(job: Job) -> None:
    """Skip the inputs and outputs that are still pending, and send the job's last event."""
    if job.has_inputs and job.started_at is None:  # else all are in place
        job.inputs.filter(status=TransferStatus.PENDING).update(status=TransferStatus.SKIPPED)
    if job.has_outputs:
        job.outputs.filter(status=TransferStatus.PENDING).update(status=TransferStatus.SKIPPED)
    events.completed(job)
