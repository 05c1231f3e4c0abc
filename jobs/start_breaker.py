"""Whether a node starts containers: a breaker for starts that fail for reasons which are not the job's.

Some failed starts are the job's own fault for sure (`StartFailed`), some are the engine's (`EngineInTrouble`). Of the others
(`StartRefused`) one alone does not tell. It is tried again, and written down in the node's row. Where jobs of different
images, or several jobs, fail one after another in the same words, it is the engine: the node takes no more jobs, gives those
back, and after a pause takes one at a time until one starts. Any successful start ends all that.
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

TAKES_JOBS: Final = Q(next_start_at=None)
MAY_PROBE: Final = Q(next_start_at__lte=Now())

_IMAGES: Final = 2  # so many, or
_JOBS: Final = 3  # so many jobs that fail in a row in the same words make it the engine's fault
_TRIES: Final = 5  # of one job, while nothing shows that it is the engine's
_REMEMBERED: Final = 16

Verdict = Literal["try again", "put back", "give up"]


def succeeded(node_id: int) -> None:
    """A container was started there: the node takes jobs."""
    failing = Node.objects.filter(pk=node_id, start_refused__isnull=False)
    if failing.update(start_refused=None, start_refusal="", start_pause=None, start_probe=None, next_start_at=None):
        logger.info("a container was started where others had failed", extra={"node": node_id})


def refused(
    uuid: UUID, guard: Q, node_id: int, words: str, *, certain: bool = False, intervals: ClaimIntervals = ClaimIntervals()
) -> Verdict:
    """Write down that the start of this job failed, and say what is to become of it.

    `certain`: the engine says that it is at fault; then the job is never given up. Raises `OwnershipLost` where `guard` does
    not hold.
    """
    with short_transaction():
        job = Job.objects.select_for_update().only("image", "refused_starts").filter(guard, uuid=uuid).first()
        if job is None:
            raise OwnershipLost("the job belongs to somebody else, or is in another state")
        node = Node.objects.select_for_update().get(pk=node_id)
        was_closed = node.next_start_at is not None
        _remember(node, job, _storable(words))
        is_nodes_fault = certain or len(images_refused(node)) >= _IMAGES
        if not (was_closed and is_nodes_fault):  # what a closed node does says nothing of the job
            job.refused_starts += 1
            job.save(update_fields=["refused_starts"])
        closed = was_closed or _is_enough(node, certain=certain, tries=job.refused_starts)
        if closed:
            _close(node, job, intervals)
        node.save(update_fields=["start_refused", "start_refusal", "start_pause"])
    if not certain and job.refused_starts >= _TRIES and not (was_closed and is_nodes_fault):
        return "give up"  # others are started, or all that fail are of its image
    return "put back" if closed else "try again"


def images_refused(node: Node) -> set[str]:
    """Those whose jobs were the last that failed to start there."""
    return {image for image, _ in node.start_refused or ()}


def _remember(node: Node, job: Job, words: str) -> None:
    pair = [job.image, str(job.uuid)]
    in_a_row = node.start_refused if node.start_refused and _same(node.start_refusal, words) else []
    node.start_refused = [*(known for known in in_a_row if known != pair), pair][-_REMEMBERED:]
    node.start_refusal = words


def _is_enough(node: Node, *, certain: bool, tries: int) -> bool:
    """Whether the failures in a row show that the node is at fault."""
    jobs = len(node.start_refused or ())
    return len(images_refused(node)) >= _IMAGES or jobs >= _JOBS or (certain and tries >= _JOBS)


def _close(node: Node, job: Job, intervals: ClaimIntervals) -> None:
    """Let the node take one job, but only after a pause, by the database's clock. What was under way makes it no longer."""
    if node.next_start_at is None:
        node.start_pause = int(intervals.start_pause)
        logger.error("the node takes no more jobs, every start fails: %s", node.start_refusal, extra={"node": node.name})
    elif node.start_probe == job.uuid:
        node.start_pause = int(min(2 * (node.start_pause or intervals.start_pause), intervals.start_pause_max))
        logger.warning("the node still starts nothing: %s", node.start_refusal, extra={"node": node.name})
    else:
        return
    pause = timedelta(seconds=node.start_pause)
    Node.objects.filter(pk=node.pk).update(next_start_at=Now() + pause, start_probe=None)


def _same(*texts: str) -> bool:
    return len({_without_names(text) for text in texts}) == 1


def _without_names(text: str) -> str:
    """An error without the ids and numbers in it, which differ from container to container."""
    return re.sub(r"[0-9a-f-]+", lambda found: "#" if re.search("[0-9]", found[0]) else found[0], text.lower())


def _storable(text: str) -> str:
    """Without what PostgreSQL's text refuses."""
    return text.replace("\x00", "�").encode(errors="replace").decode()
