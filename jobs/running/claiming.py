"""Decides which job a worker of a node may drive next: the oldest that fits, of the namespace whose turn it is."""

from datetime import timedelta
from functools import lru_cache, reduce
from operator import or_
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Exists, F, Q, QuerySet, Subquery
from django.db.models.functions import Now

from jobs import node_room, start_breaker
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.namespace_use import use_of
from jobs.running import turns
from jobs.running.suspects import SUSPECT_AFTER
from jobs.running.turns import Turn
from jobs.states import State
from orchestrator_site.base.access import limits
from orchestrator_site.base.db.existence import ExistenceQuery
from orchestrator_site.base.db.returning import update_returning
from orchestrator_site.base.db.transactions import one_connection, short_read, short_transaction
from orchestrator_site.base.intervals import ClaimIntervals

_CANDIDATES: Final = 16  # jobs to try while other workers are faster
ANY: Final = Q()


class _Conflict(Exception):
    """Another worker was faster, or the capacity is gone."""


class _Candidate(NamedTuple):
    """A job that may be claimed."""

    uuid: UUID
    limited: str = ""  # its namespace, if that has limits


def unclaimed() -> "QuerySet[Job]":
    """Return the jobs that no node has claimed, oldest first."""
    return Job.objects.filter(status=State.ACCEPTED, node=None).order_by("uuid")


def orphans(node_id: int) -> "QuerySet[Job]":
    """Return the unfinished jobs of a node whose owner died or released them. Their containers may be there."""
    return Job.objects.filter(node=node_id, owner=None, completed_at=None)


def startable(*, downloads: bool, uploads: bool, suspects: bool = True) -> Q:
    """Return a filter for the jobs that a worker may claim.

    Without `downloads` (or `uploads`) jobs that have not started and have files to download (or upload) are left out, and
    without `suspects` jobs whose owners have died (see `jobs.running.suspects`).
    """
    among = Q() if suspects else Q(owner_deaths__lt=SUSPECT_AFTER)
    if not downloads:
        among &= ~Q(status=State.ACCEPTED, has_downloads=True)
    if not uploads:
        among &= ~Q(status=State.ACCEPTED, has_uploads=True)
    return among


def claim(node_id: int, worker: UUID, among: Q = ANY, intervals: ClaimIntervals = ClaimIntervals()) -> Claim | None:
    """Claim one of the jobs `among` for this worker: an orphan of its node, else the oldest that fits. None if there is none.

    The claim, the reservation and the next claim number are one transaction.
    """
    with one_connection():
        while True:
            work = _look_for_work(node_id, among, intervals)
            candidates = _adoptable(node_id, among) if work.orphans else _startable(work, node_id, among, intervals)
            if not candidates:
                return None
            for candidate in candidates:
                try:
                    if work.orphans:
                        job = _adopt(candidate.uuid, worker, node_id)
                    else:
                        job = _reserve(candidate, worker, node_id, intervals)
                except _Conflict:
                    continue
                except IntegrityError:  # this worker was declared dead: its row is gone
                    return None
                return Claim(job.uuid, worker, job.claims, job.owner_deaths, job)


def may_have_work(node_id: int) -> bool:
    """Return whether any job waits that a worker of this node could claim if it fits.

    An idle worker asks this first, again and again: to plan the statement of `has_work` takes PostgreSQL much longer.
    """
    with short_read():
        return any(_waiting_query(node_id).ask())


@lru_cache(maxsize=16)
def _waiting_query(node_id: int) -> ExistenceQuery:
    return ExistenceQuery(orphans(node_id), unclaimed())


def has_work(node_id: int, among: Q = ANY, intervals: ClaimIntervals = ClaimIntervals()) -> bool:
    """Return whether a worker of this node could claim one of the jobs `among` now."""
    work = _look_for_work(node_id, among, intervals)
    return work.orphans or bool(_startable(work, node_id, among, intervals))


class _Work(NamedTuple):
    """What one statement says about the work that there is for a node."""

    orphans: bool
    oldest: UUID | None  # of the waiting jobs that fit
    oldest_may_start: bool  # else the node has failed to start jobs, or a job may have been passed over for too long


def _look_for_work(node_id: int, among: Q, intervals: ClaimIntervals) -> _Work:
    with short_read():
        (has_orphans, failing, passed_over), oldest = _work_query(node_id, among, intervals.passed_over).ask_with_first()
    uuid = UUID(oldest) if isinstance(oldest, str) else oldest  # SQLite has no type for it
    return _Work(has_orphans, uuid, oldest_may_start=not (failing or passed_over))


@lru_cache(maxsize=16)
def _work_query(node_id: int, among: Q, passed_over: float) -> ExistenceQuery:
    node = Node.objects.filter(pk=node_id)
    waiting = unclaimed().filter(among)
    oldest = Job.objects.filter(uuid=Subquery(waiting.values("uuid")[:1]))  # only this one, however many wait
    fitting = waiting.filter(
        Exists(node.filter(drained=False)),  # does not depend on the job: for a drained node no job is looked at
        Q(cpu_millis__lte=Subquery(node.values("cpu_millis")))
        & Q(cpu_millis__lte=Subquery(node.values(left=node_room.CPU_LEFT)))
        & Q(memory_mib__lte=Subquery(node.values(left=node_room.MEMORY_LEFT))),
    )
    return ExistenceQuery(
        orphans(node_id).filter(among),
        node.exclude(start_breaker.ACCEPTS_JOBS),
        oldest.filter(created_at__lt=Now() - timedelta(seconds=passed_over)),
        first=fitting.values("uuid"),
    )


def _adoptable(node_id: int, among: Q) -> list[_Candidate]:
    # In random order, so that hundreds of threads which look at the same time do not try the same orphans. But the job with most
    # dead owners comes first, so that others are not adopted only to lose another owner because of it.
    rows = orphans(node_id).filter(among).order_by("-owner_deaths", "?")
    with short_read():
        return [_Candidate(uuid) for uuid in rows.values_list("uuid", flat=True)[:_CANDIDATES]]


def _startable(work: _Work, node_id: int, among: Q, intervals: ClaimIntervals) -> list[_Candidate]:
    """Return jobs that may start on the node now, in the order in which they may."""
    if work.oldest is None:
        return []
    with short_read():
        if turns.matter():
            return _in_turn(_accepting(node_id), among, intervals, oldest_may_start=work.oldest_may_start)
        if work.oldest_may_start:
            return [_Candidate(work.oldest)]
        node = _accepting(node_id)
        return [] if node is None else [_Candidate(uuid) for uuid in _fitting(node, among, _could_hold(node) & among, intervals)]


def _in_turn(node: Node | None, among: Q, intervals: ClaimIntervals, *, oldest_may_start: bool) -> list[_Candidate]:
    """Return the jobs that may start of the first namespace which has any."""
    found = [] if node is None or node.drained else turns.turns(node)
    if node is None or not found:
        return []
    held_back_by = None if oldest_may_start else _passed_over(_heads(node, among, found).exclude(_fits_now(node)), intervals)
    for turn in found:
        jobs = _fitting(node, among & turn.fits, _could_hold(node) & turn.could_hold & among, intervals, turns.IN_ORDER)
        if startable := [job for job in jobs if held_back_by is None or job < held_back_by]:
            limited = turn.namespace if turn.limits.any_for_claims else ""
            return [_Candidate(job, limited) for job in startable]
    return []


def _heads(node: Node, among: Q, found: list[Turn]) -> "QuerySet[Job]":
    """Return the oldest job of each of these namespaces of those that its limits allow now and an empty node could hold."""
    could_start = unclaimed().filter(_could_hold(node) & among).order_by(*turns.IN_ORDER)
    heads = (Q(uuid=Subquery(could_start.filter(turn.fits).values("uuid")[:1])) for turn in found)
    return Job.objects.filter(reduce(or_, heads)).order_by("uuid")


def _accepting(node_id: int) -> Node | None:
    """Return the node, or None if every start fails there and the next try is not due."""
    return Node.objects.filter(start_breaker.ACCEPTS_JOBS | start_breaker.MAY_PROBE, pk=node_id).first()


def _could_hold(node: Node) -> Q:
    """Return a filter for the jobs that the node could run if it were empty."""
    return _at_most(node_room.largest(node))


def _fits_now(node: Node) -> Q:
    return _at_most(node_room.left(node))


def _at_most(room: node_room.Room) -> Q:
    return Q(cpu_millis__lte=room.cpu_millis, memory_mib__lte=room.memory_mib)


def _passed_over(jobs: "QuerySet[Job]", intervals: ClaimIntervals) -> UUID | None:
    """Return the oldest of these jobs that has been passed over for too long: it holds back younger ones."""
    since = Now() - timedelta(seconds=intervals.passed_over)
    return jobs.filter(created_at__lt=since).values_list("uuid", flat=True).first()


def _fitting(node: Node, among: Q, holding_back: Q, intervals: ClaimIntervals, order: tuple[str, ...] = ("uuid",)) -> list[UUID]:
    """Return the jobs `among` that may start on the node now, oldest first.

    One of those `holding_back` that does not fit and was passed over for too long keeps younger ones waiting.
    """
    fits_now = _could_hold(node) & _fits_now(node) & among
    now = unclaimed().filter(fits_now).order_by(*order).values_list("uuid", flat=True)
    # If starts have failed, these images may be the reason: another one shows more.
    others = now.exclude(image__in=start_breaker.failed_images(node)) if node.next_start_at else now
    jobs = list(others[:_CANDIDATES]) or list(now[:_CANDIDATES])
    if not jobs:
        return []
    # Only among older jobs, so that the cost does not grow with the queue.
    held_back_by = _passed_over(unclaimed().filter(holding_back, uuid__lt=jobs[-1]).exclude(fits_now).order_by(*order), intervals)
    return [job for job in jobs if held_back_by is None or job < held_back_by]


def _adopt(uuid: UUID, worker: UUID, node_id: int) -> Job:
    with short_transaction():
        return _take(orphans(node_id).filter(uuid=uuid), worker)


def _reserve(candidate: _Candidate, worker: UUID, node_id: int, intervals: ClaimIntervals) -> Job:
    uuid, limited = candidate
    with short_transaction():
        most = limits.lock(limited) if limited else limits.NONE
        reservation = {"node": node_id, "reserved": True, "doing": "creating the container", "claimed_at": Now()}
        job = _take(unclaimed().filter(uuid=uuid), worker, **reservation)
        if limited and not use_of(limited).is_within(most):  # which counts this job, too
            limits.kept.forget()  # it may have other limits now
            raise _Conflict
        cpu, memory = job.cpu_millis, job.memory_mib
        with_capacity = Node.objects.alias(cpu_left=node_room.CPU_LEFT, memory_left=node_room.MEMORY_LEFT).filter(
            pk=node_id, drained=False, cpu_left__gte=cpu, memory_left__gte=memory
        )
        reserved = {
            "cpu_millis_reserved": F("cpu_millis_reserved") + cpu,
            "memory_mib_reserved": F("memory_mib_reserved") + memory,
        }
        probe = {"next_start_at": Now() + timedelta(seconds=intervals.probe_lease), "start_probe": uuid}
        if not (
            with_capacity.filter(start_breaker.ACCEPTS_JOBS).update(**reserved)
            or with_capacity.filter(start_breaker.MAY_PROBE).update(**reserved, **probe)
        ):
            raise _Conflict
        return job


def _take(rows: "QuerySet[Job]", worker: UUID, **values: Any) -> Job:
    """Make the worker the owner of the only job in `rows`, and return the row."""
    for job in update_returning(rows, owner=worker, claims=F("claims") + 1, **values):
        return job
    raise _Conflict
