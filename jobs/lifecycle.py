"""Every change of a job's state: one guarded UPDATE and the event that reports it, in one transaction.

The guard is the transition table and the claim: who writes must still own the job. Where an UPDATE finds
no row, somebody else was first: `OwnershipLost` tells the caller to read the row again and do what it now asks.

Times that are not the engine's are the database's: no process's clock can make an ended job look old.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Q
from django.db.models.functions import Now

from jobs import events, node_hints, start_breaker
from jobs.errors import ErrorCode, OwnershipLost
from jobs.models import Input, Job, Node, Output
from jobs.states import DECIDED, NO_EXIT_CODE, UNDECIDED, Reason, State, TransferStatus, sources
from orchestrator_site.base.db.transactions import short_transaction

_ERROR_BYTES = 1000
_DOING_LENGTH = 640

UNOWNED = Q(owner=None)
_ENDING = Q(exited_at__isnull=False, completed_at=None)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one worker to drive one job, until somebody else claims it."""

    uuid: UUID
    owner: UUID
    number: int
    deaths: int = field(default=0, compare=False)  # of owners before this one, since the job last went well

    @property
    def guard(self) -> Q:
        return Q(owner=self.owner, claims=self.number)


@contextmanager
def changed(uuid: UUID, guard: Q, **values: Any) -> Iterator[Job]:
    """Change the job's row and yield it as it now is, in a transaction that holds the row's lock.

    What the caller writes inside is committed with it. Raises `OwnershipLost` where `guard` does not hold.
    """
    with short_transaction():
        if not Job.objects.filter(guard, uuid=uuid).update(**values):
            raise OwnershipLost("the job belongs to somebody else, or is in another state")
        yield Job.objects.get(uuid=uuid)


def one_sentence(error: str) -> str:
    """An error as rows and events keep it: at most 1 KiB, without what PostgreSQL's text refuses."""
    return error.replace("\x00", "�").strip().encode(errors="replace")[:_ERROR_BYTES].decode(errors="ignore")


# -- before the process runs ------------------------------------------------------------------------


def doing(claim: Claim, text: str) -> None:
    """Say what an accepted job waits for. Also the fence before a step that cannot be taken back."""
    with changed(claim.uuid, claim.guard & Q(status=State.ACCEPTED), doing=text[:_DOING_LENGTH]):
        pass


def input_done(claim: Claim, item: Input, size: int, following: str, seconds: float) -> None:
    """An input is in place, and `following` is done next. Put again into a new container it emits no second event."""
    with changed(claim.uuid, claim.guard & Q(status=State.ACCEPTED), doing=following[:_DOING_LENGTH]) as job:
        if _settle(item, TransferStatus.SUCCESS, size):
            events.input_done(job, item, seconds)


def input_failed(claim: Claim, item: Input, code: ErrorCode, error: str, seconds: float) -> None:
    """An input cannot be brought in: the job is decided, its container never starts."""
    with _decided(claim.uuid, claim.guard & Q(status=State.ACCEPTED), State.FAILED, Reason.INPUT_FAILED, error) as job:
        if _settle(item, TransferStatus.FAILED, None, error):
            events.input_done(job, item, seconds, code)


def put_back(claim: Claim) -> None:
    """A job whose node starts nothing waits for another, or for a better time, with nothing of it left there."""
    with changed(claim.uuid, claim.guard & Q(status=State.ACCEPTED), owner=None) as job:
        _put_back(job)


def started(claim: Claim, started_at: datetime) -> None:
    """The process runs, or ran. `started_at` is the engine's own time."""
    guard = claim.guard & Q(status__in=sources(State.RUNNING))
    with changed(claim.uuid, guard, status=State.RUNNING, started_at=started_at, owner_deaths=0, doing="") as job:
        events.started(job)
        if job.node_id is not None:
            start_breaker.succeeded(job.node_id)


# -- the decision -----------------------------------------------------------------------------------


@contextmanager
def _decided(uuid: UUID, guard: Q, status: State, reason: Reason | None, error: str = "", **values: Any) -> Iterator[Job]:
    values = {"finished_at": Now(), "owner_deaths": 0} | values
    guard &= Q(status__in=sources(status))
    with changed(uuid, guard, status=status, reason=reason or "", error=one_sentence(error), doing="", **values) as job:
        yield job


def decide(
    claim: Claim,
    status: State,
    reason: Reason | None,
    error: str = "",
    *,
    exit_code: int | None = None,
    ended: datetime | None = None,
) -> None:
    """Decide a job. `ended`: when its process ended; it then needs its cpu and memory no more.

    A decision comes before the engine's stop: without `ended` the process may still run, and keeps its reservation.
    """
    values: dict[str, Any] = {"exit_code": exit_code}
    if ended is not None:
        values["finished_at"] = ended
    with _decided(claim.uuid, claim.guard, status, reason, error, **values) as job:
        if ended is not None:
            release(job)


def cancel(uuid: UUID) -> None:
    """Decide `cancelled`, whoever owns the job; its owner stops the process. Raises `OwnershipLost` where it is decided."""
    with _decided(uuid, Q(), State.CANCELLED, Reason.CANCELLED) as job:
        if job.node_id is None:  # nobody runs it, so nobody else would end it
            _conclude(job)


def cancel_outputs(uuid: UUID) -> None:
    """Have the owner of a decided job end its outputs; the job stays as it is decided.

    Raises `OwnershipLost` where it has none to end: it is not decided, was cancelled before, or is complete.
    """
    unfinished = Q(status__in=DECIDED - {State.CANCELLED}) & Q(completed_at=None, outputs_cancelled_at=None)
    with changed(uuid, unfinished, outputs_cancelled_at=Now()):
        pass


# -- after the process -------------------------------------------------------------------------------


def exited(claim: Claim, exit_code: int | None) -> None:
    """The log has ended: the `exit` event. `exit_code` is set where the decision came before the end."""
    guard = claim.guard & Q(exited_at=None) & ~Q(status__in=UNDECIDED)
    with changed(claim.uuid, guard, exited_at=Now(), exit_code=exit_code, owner_deaths=0) as job:
        release(job)
        events.exited(job)


def output_done(claim: Claim, item: Output, size: int, seconds: float, content: str | None = None) -> None:
    """An output was taken out; `content` is what an `event` output holds, as JSON."""
    with changed(claim.uuid, claim.guard & _ENDING, owner_deaths=0, doing="") as job:
        if _settle(item, TransferStatus.SUCCESS, size):
            events.output_done(job, item, seconds, content=content)


def output_failed(claim: Claim, item: Output, code: ErrorCode, error: str, seconds: float) -> None:
    """An output cannot be taken out. It changes nothing of the job's status."""
    with changed(claim.uuid, claim.guard & _ENDING, owner_deaths=0, doing="") as job:
        if _settle(item, TransferStatus.FAILED, None, error):
            events.output_done(job, item, seconds, code)


def completed(claim: Claim) -> None:
    """All that was to be done is done; outputs still pending are skipped. Gives up the claim."""
    with changed(claim.uuid, claim.guard & _ENDING, owner=None) as job:
        _complete(job)


def concluded(claim: Claim) -> None:
    """A decided job that never ran, or of which nothing is left, ends here, whatever is missing."""
    with changed(claim.uuid, claim.guard & Q(completed_at=None) & ~Q(status__in=UNDECIDED), owner=None) as job:
        _conclude(job)


def lost_with_node(uuid: UUID, node: str) -> None:
    """The job's node is away for too long: put it back where it had not started, else `engine_lost`.

    Raises `OwnershipLost` where a worker of the node took it up meanwhile.
    """
    unfinished = UNOWNED & Q(completed_at=None) & ~Q(node=None)
    with changed(uuid, unfinished, claims=F("claims") + 1) as job:
        if job.status == State.ACCEPTED:
            _put_back(job)
            return
        if not job.decided:
            error = one_sentence(f"the node {node} went away while the job ran")
            _write(job, status=State.FAILED, reason=Reason.ENGINE_LOST, finished_at=Now(), error=error)
        _conclude(job)


def given_up(claim: Claim, error: str) -> None:
    """End a job whatever its state, and leave its container to the sweep: one look at it may be what kills its owners."""
    with changed(claim.uuid, claim.guard & Q(completed_at=None), owner=None) as job:
        if not job.decided:
            reason = Reason.START_FAILED if job.status == State.ACCEPTED else Reason.ENGINE_LOST
            _write(job, status=State.FAILED, reason=reason, finished_at=Now(), error=one_sentence(error))
        _conclude(job)


def release(job: Job) -> None:
    """Give back what the job has reserved, once, and tell its node's workers."""
    if job.node_id is None or not Job.objects.filter(uuid=job.uuid, reserved=True).update(reserved=False):
        return
    Node.objects.filter(pk=job.node_id).update(
        cpu_millis_reserved=F("cpu_millis_reserved") - job.cpu_millis,
        memory_mib_reserved=F("memory_mib_reserved") - job.memory_mib,
    )
    node_hints.node_on_commit(job.node_id)


# -- parts that are committed with the above ----------------------------------------------------------


def _write(job: Job, **values: Any) -> None:
    """Change more of a row that `changed` has locked, and have the job be as it now is."""
    Job.objects.filter(uuid=job.uuid).update(**values)
    job.refresh_from_db(fields=list(values))


def _settle(item: Input | Output, status: TransferStatus, size: int | None, error: str = "") -> bool:
    """Write down how a transfer ended; False where that was written before."""
    item.status, item.bytes, item.error = status, size, one_sentence(error)
    rows = type(item).objects.filter(pk=item.pk, status=TransferStatus.PENDING)
    return bool(rows.update(status=status, bytes=size, error=item.error))


def _put_back(job: Job) -> None:
    release(job)
    Job.objects.filter(uuid=job.uuid).update(owner=None, node=None, doing="")
    node_hints.somebody_on_commit(job)


def _conclude(job: Job) -> None:
    """End a decided job of which no process and no file can be reached."""
    release(job)
    if job.exited_at is None:
        _write(job, exited_at=Now(), exit_code=NO_EXIT_CODE if job.exit_code is None else job.exit_code)
        events.exited(job)
    if job.started_at is not None and job.status != State.CANCELLED and job.outputs_cancelled_at is None:
        for item in job.outputs.filter(status=TransferStatus.PENDING):
            if _settle(item, TransferStatus.FAILED, None, "the container is gone, and its files with it"):
                events.output_done(job, item, 0.0, ErrorCode.ARTIFACT_READ_FAILED)
    _complete(job)


def _complete(job: Job) -> None:
    """Skip what is still pending, and emit the job's last event."""
    job.inputs.filter(status=TransferStatus.PENDING).update(status=TransferStatus.SKIPPED)
    job.outputs.filter(status=TransferStatus.PENDING).update(status=TransferStatus.SKIPPED)
    Job.objects.filter(uuid=job.uuid).update(completed_at=Now(), owner=None, doing="")
    events.completed(job)
