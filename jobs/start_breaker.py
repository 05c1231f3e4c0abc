"""A breaker for each node: decides whether a node starts containers, or fails every start (ADR 15).

A start that fails may be the job's fault for certain (`StartFailed`), the engine's for certain (`EngineInTrouble`), or neither
(`StartRefused`). Failures that are not the job's for certain are recorded in the node's row, which all its workers share. If
several jobs, or jobs of different images, fail in a row with the same message, the node accepts no more jobs: those that failed
are requeued, and after a pause one job at a time is tried, until a start succeeds.
"""

import logging
import re
from datetime import timedelta
from typing import Final, Literal
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from jobs.errors import OwnershipLost
from jobs.models import Job, Node
from orchestrator_site.base.db.transactions import short_transaction
from orchestrator_site.base.intervals import ClaimIntervals

logger = logging.getLogger(__name__)

ACCEPTS_JOBS: Final = Q(next_start_at=None)
MAY_PROBE: Final = Q(next_start_at__lte=Now())

# How many must fail in a row with the same message for the node to be at fault: either is enough.
_IMAGES: Final = 2
_JOBS: Final = 3
_MAX_ATTEMPTS: Final = 5  # of one job, while the node does not seem to be at fault
_MAX_REMEMBERED: Final = 16  # failures

Verdict = Literal["retry", "requeue", "give up"]


def record_success(node_id: int) -> None:
    """Record that the node has started a container: it accepts jobs."""
    failing = Node.objects.filter(pk=node_id, start_refused__isnull=False)
    if failing.update(start_refused=None, start_refusal="", start_pause=None, start_probe=None, next_start_at=None):
        logger.info("the node starts containers again")


def record_failure(
    uuid: UUID, guard: Q, node_id: int, message: str, *, certain: bool = False, intervals: ClaimIntervals = ClaimIntervals()
) -> Verdict:
    """Record that a start failed, and return what to do with its job.

    Args:
        uuid: The job.
        guard: The condition that the job is still the caller's.
        node_id: The node that failed to start it.
        message: The engine's own.
        certain: The engine is at fault for certain. The job is then never given up.
        intervals: Pauses of a node that accepts no jobs.

    Raises:
        OwnershipLost: `guard` does not hold.
    """
    with short_transaction():
        job = Job.objects.select_for_update().only("image", "refused_starts").filter(guard, uuid=uuid).first()
        if job is None:
            raise OwnershipLost("the job has another owner or is in another state")
        node = Node.objects.select_for_update().get(pk=node_id)
        accepted_jobs = node.next_start_at is None
        _remember(node, job, _storable(message))
        is_nodes_fault = certain or len(failed_images(node)) >= _IMAGES
        if accepted_jobs or not is_nodes_fault:  # else the failure says nothing about the job
            job.refused_starts += 1
            job.save(update_fields=["refused_starts"])
        accepts_jobs = accepted_jobs and not _is_enough(node, certain=certain, attempts=job.refused_starts)
        if not accepts_jobs:
            _pause(node, job, intervals)
        node.save(update_fields=["start_refused", "start_refusal", "start_pause"])
    if not certain and job.refused_starts >= _MAX_ATTEMPTS and (accepted_jobs or not is_nodes_fault):
        return "give up"  # other jobs start, or only jobs of this image fail
    return "retry" if accepts_jobs else "requeue"


def failed_images(node: Node) -> set[str]:
    """Return the images of the jobs that failed to start there in a row."""
    return {image for image, _ in node.start_refused or ()}


def _remember(node: Node, job: Job, message: str) -> None:
    failure = [job.image, str(job.uuid)]
    in_a_row = node.start_refused if node.start_refused and _is_same(node.start_refusal, message) else []
    node.start_refused = [*(known for known in in_a_row if known != failure), failure][-_MAX_REMEMBERED:]
    node.start_refusal = message


def _is_enough(node: Node, *, certain: bool, attempts: int) -> bool:
    """Return whether the failures in a row show that the node is at fault."""
    jobs = len(node.start_refused or ())
    return len(failed_images(node)) >= _IMAGES or jobs >= _JOBS or (certain and attempts >= _JOBS)


def _pause(node: Node, job: Job, intervals: ClaimIntervals) -> None:
    """Let the node claim one job only, after a pause; a longer pause if `job` was the last such probe."""
    if node.next_start_at is None:
        node.start_pause = int(intervals.start_pause)
        logger.error("the node accepts no more jobs because every start fails: %s", node.start_refusal, extra={"node": node.name})
    elif node.start_probe == job.uuid:
        node.start_pause = int(min(2 * (node.start_pause or intervals.start_pause), intervals.start_pause_max))
        logger.warning("the node still fails every start: %s", node.start_refusal, extra={"node": node.name})
    else:  # it was claimed before the node was paused
        return
    pause = timedelta(seconds=node.start_pause)
    Node.objects.filter(pk=node.pk).update(next_start_at=Now() + pause, start_probe=None)


def _is_same(*messages: str) -> bool:
    return len({_without_names(message) for message in messages}) == 1


def _without_names(message: str) -> str:
    """Return a message without the ids and numbers in it, which differ from container to container."""
    return re.sub(r"[0-9a-f-]+", lambda found: "#" if re.search("[0-9]", found[0]) else found[0], message.lower())


def _storable(message: str) -> str:
    """Return a message without NUL and lone surrogates, which PostgreSQL refuses."""
    return message.replace("\x00", "�").encode(errors="replace").decode()
