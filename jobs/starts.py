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

from django.db.models import F, Q
from django.db.models.functions import Now

from jobs.errors import OwnershipLost
from jobs.models import Job, Node
from orchestrator_site.database import short_transaction

logger = logging.getLogger(__name__)

TAKES_JOBS: Final = Q(next_start_at=None)
MAY_PROBE: Final = Q(next_start_at__lte=Now())
PROBE_LEASE: Final = timedelta(seconds=60)  # a job that is to show whether starts work again may have to pull its image

_IMAGES: Final = 2  # so many, or
_JOBS: Final = 3  # so many jobs that fail in a row in the same words make it the engine's fault
_TRIES: Final = 5  # of one job, while nothing shows that it is the engine's
_FIRST_PAUSE: Final = 5  # seconds, doubled with each job that fails
_LONGEST_PAUSE: Final = 60
_REMEMBERED: Final = 16

Verdict = Literal["try again", "put back", "give up"]


def succeeded(node_id: int) -> None:
    """A container was started there: the node takes jobs."""
    failing = Node.objects.filter(pk=node_id, start_refused__isnull=False)
    if failing.update(start_refused=None, start_refusal="", start_pause=None, start_probe=None, next_start_at=None):
        logger.info("a container was started where others had failed", extra={"node": node_id})


def refused(uuid: UUID, guard: Q, node_id: int, words: str, *, certain: bool = False) -> Verdict:
    """Write down that the start of this job failed, and say what is to become of it.

    `certain`: the engine says that it is at fault; then the job is never given up. Raises `OwnershipLost` where `guard` does
    not hold.
    """
    with short_transaction():
        if not Job.objects.filter(guard, uuid=uuid).update(refused_starts=F("refused_starts") + 1):
            raise OwnershipLost("the job belongs to somebody else, or is in another state")
        job = Job.objects.only("image", "refused_starts").get(uuid=uuid)
        node = Node.objects.select_for_update().get(pk=node_id)
        _remember(node, job, words)
        images = images_refused(node)
        refuses = node.next_start_at is not None
        enough = len(images) >= _IMAGES or len(node.start_refused or ()) >= _JOBS or (certain and job.refused_starts >= _JOBS)
        if not refuses and enough:
            refuses, node.start_pause = True, _FIRST_PAUSE
            _rest(node)
            logger.error("the node takes no more jobs, every start fails: %s", words, extra={"node": node.name})
        elif refuses and node.start_probe == uuid:
            node.start_pause = min(2 * (node.start_pause or _FIRST_PAUSE), _LONGEST_PAUSE)
            _rest(node)
            logger.warning("the node still starts nothing: %s", words, extra={"node": node.name})
        node.save(update_fields=["start_refused", "start_refusal", "start_pause"])
    if refuses and (certain or len(images) >= _IMAGES):
        return "put back"
    if not certain and job.refused_starts >= _TRIES:
        return "give up"  # for all that is known it is this image's fault
    return "put back" if refuses else "try again"


def images_refused(node: Node) -> set[str]:
    """Those whose jobs were the last that failed to start there."""
    return {image for image, _ in node.start_refused or ()}


def _remember(node: Node, job: Job, words: str) -> None:
    pair = [job.image, str(job.uuid)]
    in_a_row = node.start_refused if node.start_refused and _same(node.start_refusal, words) else []
    node.start_refused = [*(known for known in in_a_row if known != pair), pair][-_REMEMBERED:]
    node.start_refusal = words


def _rest(node: Node) -> None:
    """Let the node take one job, but only after its pause, by the database's clock."""
    pause = timedelta(seconds=node.start_pause or _FIRST_PAUSE)
    Node.objects.filter(pk=node.pk).update(next_start_at=Now() + pause, start_probe=None)


def _same(*texts: str) -> bool:
    return len({_without_names(text) for text in texts}) == 1


def _without_names(text: str) -> str:
    """An error without the ids and numbers in it, which differ from container to container."""
    return re.sub(r"[0-9a-f-]*[0-9][0-9a-f-]*", "#", text.lower())
