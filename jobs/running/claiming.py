"""What fits where: which job a worker of a node may drive next. Oldest first, where it fits."""

from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from jobs import start_breaker
from jobs.lifecycle import Claim
from jobs.models import Job, Node
from jobs.running.suspects import SUSPECT_AFTER
from jobs.states import State
from orchestrator_site.base.db.transactions import short_transaction

PASSED_OVER_FOR = timedelta(minutes=5)  # then a job holds back younger ones on nodes that could hold it
_CANDIDATES = 16  # how many to try where other workers take them first
ANY = Q()


class _Taken(Exception):
    """Somebody else was first, or the room is gone."""


def unclaimed() -> "QuerySet[Job]":
    """Jobs that no node has, oldest first."""
    return Job.objects.filter(status=State.ACCEPTED, node=None).order_by("uuid")


def orphans(node_id: int) -> "QuerySet[Job]":
    """Unfinished jobs of a node whose owner died or let go: their containers are there."""
    return Job.objects.filter(node=node_id, owner=None, completed_at=None)


def startable(*, downloads: bool, uploads: bool, suspects: bool = True) -> Q:
    """Select the jobs that a worker may claim, given whether it has threads left for downloads and for uploads.

    A job that has started may always be claimed. Without `suspects` no job may be whose owners have died (see
    `jobs.running.suspects`).
    """
    chosen = Q() if suspects else Q(owner_deaths__lt=SUSPECT_AFTER)
    if not downloads:
        chosen &= ~Q(status=State.ACCEPTED, has_downloads=True)
    if not uploads:
        chosen &= ~Q(status=State.ACCEPTED, has_uploads=True)
    return chosen


def could_hold(node: Node) -> Q:
    """Jobs that the node could run if it were empty."""
    return Q(cpu_millis__lte=min(node.cpu_millis, node.cpu_millis_total), memory_mib__lte=node.memory_mib)


def _taking(node_id: int) -> Node | None:
    """The node, unless every start fails there and the next try is not due."""
    return Node.objects.filter(start_breaker.TAKES_JOBS | start_breaker.MAY_PROBE, pk=node_id).first()


def fitting(node: Node | None, among: Q = ANY) -> list[tuple[UUID, int, int]]:
    """The oldest jobs that may start on the node now, oldest first: uuid, number of claims, and deaths of its owners."""
    if node is None:
        return []
    fits_now = Q(
        cpu_millis__lte=node.cpu_millis_total - node.cpu_millis_reserved,
        memory_mib__lte=node.memory_mib - node.memory_mib_reserved,
    )
    possible = unclaimed().filter(could_hold(node) & among)
    now = possible.filter(fits_now).values_list("uuid", "claims", "owner_deaths")
    # Where starts have failed it may be these images' fault: another one shows more.
    others = now.exclude(image__in=start_breaker.images_refused(node)) if node.next_start_at else now
    jobs = list(others[:_CANDIDATES]) or list(now[:_CANDIDATES])
    if not jobs:
        return []
    # Looked for among older jobs only: the cost does not grow with the queue.
    passed_over = possible.exclude(fits_now).filter(uuid__lt=jobs[-1][0], created_at__lt=Now() - PASSED_OVER_FOR)
    holding_back = passed_over.values_list("uuid", flat=True).first()
    return [job for job in jobs if holding_back is None or job[0] < holding_back]


def claim(node_id: int, worker: UUID, among: Q = ANY) -> Claim | None:
    """Take one job for this worker: an orphan of its node, else the oldest that fits. None: nothing to do.

    The claim, the reservation and the next claim number are one transaction.
    """
    while True:
        with transaction.atomic():
            # In no order: all are to be taken up, and of hundreds of threads that do so at once few try the same one.
            # But the one first that has cost most owners: those beside it are not taken up to die with it.
            rows = orphans(node_id).filter(among).order_by("-owner_deaths", "?")
            orphaned = list(rows.values_list("uuid", "claims", "owner_deaths")[:_CANDIDATES])
            candidates = orphaned or fitting(_taking(node_id), among)
        if not candidates:
            return None
        for uuid, claims, deaths in candidates:
            taken = Claim(uuid, worker, claims + 1, deaths)
            try:
                (_adopt if orphaned else _reserve)(taken, node_id)
            except _Taken:
                continue
            except IntegrityError:  # this worker was declared dead: its row is gone
                return None
            return taken


def has_work(node_id: int, among: Q = ANY) -> bool:
    """Is there something that a worker of this node could claim now?"""
    return orphans(node_id).filter(among).exists() or bool(fitting(_taking(node_id), among))


def _adopt(taken: Claim, node_id: int) -> None:
    with short_transaction():
        rows = orphans(node_id).filter(uuid=taken.uuid, claims=taken.number - 1)
        if not rows.update(owner=taken.owner, claims=taken.number):
            raise _Taken


def _reserve(taken: Claim, node_id: int) -> None:
    with short_transaction():
        rows = unclaimed().filter(uuid=taken.uuid, claims=taken.number - 1)
        if not rows.update(owner=taken.owner, node=node_id, claims=taken.number, reserved=True, doing="preparing"):
            raise _Taken
        cpu, memory = Job.objects.values_list("cpu_millis", "memory_mib").get(uuid=taken.uuid)
        room = Node.objects.filter(
            pk=node_id,
            cpu_millis_reserved__lte=F("cpu_millis_total") - cpu,
            memory_mib_reserved__lte=F("memory_mib") - memory,
        )
        reserved = {
            "cpu_millis_reserved": F("cpu_millis_reserved") + cpu,
            "memory_mib_reserved": F("memory_mib_reserved") + memory,
        }
        probe = {"next_start_at": Now() + start_breaker.PROBE_LEASE, "start_probe": taken.uuid}
        if not (
            room.filter(start_breaker.TAKES_JOBS).update(**reserved)
            or room.filter(start_breaker.MAY_PROBE).update(**reserved, **probe)
        ):
            raise _Taken
