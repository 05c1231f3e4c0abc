"""Decides which job a worker of a node may drive next: the oldest that fits."""

from datetime import timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from jobs import start_breaker
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.running.suspects import SUSPECT_AFTER
from jobs.states import State
from orchestrator_site.base.db.existence import ExistenceQuery
from orchestrator_site.base.db.returning import update_returning
from orchestrator_site.base.db.transactions import short_transaction
from orchestrator_site.base.intervals import ClaimIntervals

_CANDIDATES: Final = 16  # jobs to try while other workers are faster
ANY: Final = Q()


class _Conflict(Exception):
    """Another worker was faster, or the capacity is gone."""


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
    while True:
        with transaction.atomic():
            # In random order, so that hundreds of threads which look at the same time do not try the same orphans. But the job
            # with most dead owners comes first, so that others are not adopted only to lose another owner because of it.
            rows = orphans(node_id).filter(among).order_by("-owner_deaths", "?")
            adoptable = list(rows.values_list("uuid", "claims", "owner_deaths")[:_CANDIDATES])
            candidates = adoptable or _fitting(_accepting(node_id), among, intervals)
        if not candidates:
            return None
        for uuid, claims, deaths in candidates:
            new = Claim(uuid, worker, claims + 1, deaths)
            try:
                if adoptable:
                    _adopt(new, node_id)
                else:
                    _reserve(new, node_id, intervals)
            except _Conflict:
                continue
            except IntegrityError:  # this worker was declared dead: its row is gone
                return None
            return new


def has_work(node_id: int, among: Q = ANY, intervals: ClaimIntervals = ClaimIntervals()) -> bool:
    """Return whether a worker of this node could claim one of the jobs `among` now."""
    adoptable, waiting = _work_query(node_id, among).ask()  # mostly neither
    return adoptable or (waiting and bool(_fitting(_accepting(node_id), among, intervals)))


@lru_cache(maxsize=16)
def _work_query(node_id: int, among: Q) -> ExistenceQuery:
    return ExistenceQuery(orphans(node_id).filter(among), unclaimed().filter(among))


def _accepting(node_id: int) -> Node | None:
    """Return the node, or None if every start fails there and the next try is not due."""
    return Node.objects.filter(start_breaker.ACCEPTS_JOBS | start_breaker.MAY_PROBE, pk=node_id).first()


def _could_hold(node: Node) -> Q:
    """Return a filter for the jobs that the node could run if it were empty."""
    return Q(cpu_millis__lte=min(node.cpu_millis, node.cpu_millis_total), memory_mib__lte=node.memory_mib)


def _fitting(node: Node | None, among: Q, intervals: ClaimIntervals) -> list[tuple[UUID, int, int]]:
    """Return uuid, number of claims and dead owners of jobs that may start on the node now, oldest first."""
    if node is None:
        return []
    fits_now = Q(
        cpu_millis__lte=node.cpu_millis_total - node.cpu_millis_reserved,
        memory_mib__lte=node.memory_mib - node.memory_mib_reserved,
    )
    possible = unclaimed().filter(_could_hold(node) & among)
    now = possible.filter(fits_now).values_list("uuid", "claims", "owner_deaths")
    # If starts have failed, these images may be the reason: another one shows more.
    others = now.exclude(image__in=start_breaker.failed_images(node)) if node.next_start_at else now
    jobs = list(others[:_CANDIDATES]) or list(now[:_CANDIDATES])
    if not jobs:
        return []
    # Only among older jobs, so that the cost does not grow with the queue.
    passed_over_since = Now() - timedelta(seconds=intervals.passed_over)
    passed_over = possible.exclude(fits_now).filter(uuid__lt=jobs[-1][0], created_at__lt=passed_over_since)
    holding_back = passed_over.values_list("uuid", flat=True).first()
    return [job for job in jobs if holding_back is None or job[0] < holding_back]


def _adopt(new: Claim, node_id: int) -> None:
    with short_transaction():
        rows = orphans(node_id).filter(uuid=new.uuid, claims=new.number - 1)
        if not rows.update(owner=new.owner, claims=new.number):
            raise _Conflict


def _reserve(new: Claim, node_id: int, intervals: ClaimIntervals) -> None:
    with short_transaction():
        rows = unclaimed().filter(uuid=new.uuid, claims=new.number - 1)
        claimed = {"owner": new.owner, "node": node_id, "claims": new.number, "reserved": True, "doing": "creating the container"}
        job = next(iter(update_returning(rows, **claimed)), None)
        if job is None:
            raise _Conflict
        cpu, memory = job.cpu_millis, job.memory_mib
        with_capacity = Node.objects.filter(
            pk=node_id,
            cpu_millis_reserved__lte=F("cpu_millis_total") - cpu,
            memory_mib_reserved__lte=F("memory_mib") - memory,
        )
        reserved = {
            "cpu_millis_reserved": F("cpu_millis_reserved") + cpu,
            "memory_mib_reserved": F("memory_mib_reserved") + memory,
        }
        probe = {"next_start_at": Now() + timedelta(seconds=intervals.probe_lease), "start_probe": new.uuid}
        if not (
            with_capacity.filter(start_breaker.ACCEPTS_JOBS).update(**reserved)
            or with_capacity.filter(start_breaker.MAY_PROBE).update(**reserved, **probe)
        ):
            raise _Conflict
