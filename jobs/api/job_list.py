"""Reads jobs for the API. What one page costs does not grow with the table.

A page walks one index in the order of making, newest first, and reads at most `ROWS_READ` rows of it; all
other filters are applied to these. So it may be short, or empty, and still say where the next one begins.
"""

import binascii
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from jobs.api import limits
from jobs.models import Job, Node
from jobs.states import UNDECIDED

_BATCH_ROWS = 500
# Secrets that cost a decryption each, and what may be large: no answer shows them.
_UNSHOWN = ("environment", "command", "log_tail_stdout", "log_tail_stderr")


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listed job has to be; None: anything. Times are exclusive, to the millisecond."""

    status: str | None = None
    image: str | None = None
    node: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    jobs: list[Job]
    next_cursor: str | None  # None: there is nothing older


def find_job(job_id: str) -> Job | None:
    """With its node."""
    return Job.objects.defer(*_UNSHOWN).select_related("node").filter(id=job_id).first()


def find_uuid(job_id: str) -> UUID | None:
    """The row's own key."""
    return Job.objects.filter(id=job_id).values_list("uuid", flat=True).first()


def page_of_jobs(filters: Filters, *, cursor: UUID | None, limit: int) -> Page:
    """The newest jobs that match and are older than the cursor's."""
    rows = _made_between(filters.created_after, filters.created_before)
    wanted: dict[str, Any] = {}
    if filters.status is not None:
        wanted["status"] = filters.status
    if filters.image is not None:
        wanted["image"] = filters.image
    if filters.node is not None:
        node_id = Node.objects.filter(name=filters.node).values_list("pk", flat=True).first()
        if node_id is None:
            return Page([], None)
        wanted["node_id"] = node_id
    if indexed := _most_selective(wanted):
        rows = rows.filter(**{indexed: wanted.pop(indexed)})
    found: list[Job] = []
    last: UUID | None = None
    batch = _BATCH_ROWS if wanted or filters.meta else min(limit + 1, _BATCH_ROWS)
    for read, job in enumerate(_newest_first(rows, cursor, batch)):
        if len(found) == limit or read == limits.ROWS_READ:
            return Page(found, encode_cursor(last) if last else None)
        last = job.uuid
        if _matches(job, wanted, filters.meta):
            found.append(job)
    return Page(found, None)


def _most_selective(wanted: Mapping[str, Any]) -> str | None:
    """Few jobs are undecided, many images are rare, nodes are few, and most jobs have one of three statuses."""
    if wanted.get("status") in UNDECIDED:
        return "status"
    return next((name for name in ("image", "node_id", "status") if name in wanted), None)


def _matches(job: Job, wanted: Mapping[str, Any], meta: Mapping[str, str]) -> bool:
    return all(getattr(job, name) == value for name, value in wanted.items()) and all(
        job.meta.get(key) == value for key, value in meta.items()
    )


def _newest_first(rows: QuerySet[Job], cursor: UUID | None, batch: int) -> Iterator[Job]:
    """In batches, each its own bounded read of the index: no cursor is held open, no result is held whole."""
    rows = rows.defer(*_UNSHOWN).select_related("node").order_by("-uuid")
    while True:
        jobs = list(rows.filter(uuid__lt=cursor)[:batch] if cursor else rows[:batch])
        yield from jobs
        if len(jobs) < batch:
            return
        cursor = jobs[-1].uuid


def _made_between(after: datetime | None, before: datetime | None) -> QuerySet[Job]:
    """By the time that is in the rows' UUIDs (version 7: milliseconds in the upper 48 bits), so that it bounds the scan."""
    rows = Job.objects.all()
    if after is not None:
        rows = rows.filter(uuid__gte=_first_uuid(math.floor(after.timestamp() * 1000) + 1))
    if before is not None:
        rows = rows.filter(uuid__lt=_first_uuid(math.ceil(before.timestamp() * 1000)))
    return rows


def _first_uuid(milliseconds: int) -> UUID:
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def encode_cursor(last: UUID) -> str:
    """Opaque to clients: after which row a page begins."""
    return urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_cursor(text: str) -> UUID:
    """Raises ValueError where it is none of ours. Any UUID is a harmless place to begin."""
    try:
        cursor = UUID(bytes=urlsafe_b64decode(text.encode("ascii") + b"=="))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not a cursor") from error
    if encode_cursor(cursor) != text:
        raise ValueError("not a cursor")
    return cursor
