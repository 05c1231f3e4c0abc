"""Reads jobs for the API. The cost of a page does not grow with the table.

A page scans one index from the newest job to the oldest and reads at most `ROWS_READ` rows of it; all other filters are
applied to these rows. So a page may be short, even empty, and still have a next one.
"""

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from jobs.api import limits
from jobs.models import Job, Node
from jobs.states import UNDECIDED
from orchestrator_site.base.http.pagination import Page

_BATCH_ROWS = 500
# Not shown: secrets, each of which costs a decryption, and values that may be large.
_UNSHOWN = ("environment", "command", "log_tail_stdout", "log_tail_stderr")


def find_job(job_id: str) -> Job | None:
    """Return a job with its node."""
    return Job.objects.defer(*_UNSHOWN).select_related("node").filter(id=job_id).first()


def find_uuid(job_id: str) -> UUID | None:
    """Return the primary key of a job."""
    return Job.objects.filter(id=job_id).values_list("uuid", flat=True).first()


def page_of_jobs(
    *,
    limit: int,
    meta: Mapping[str, str],
    cursor: UUID | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    **wanted: Any,
) -> Page[Job]:
    """Return the newest jobs that match and are older than the cursor, at most `limit`.

    Times are exclusive, to the millisecond. `wanted` may have `status`, `image` and `node` (a name).
    """
    rows = _created_between(created_after, created_before)
    if "node" in wanted:
        wanted["node_id"] = Node.objects.filter(name=wanted.pop("node")).values_list("pk", flat=True).first()
        if wanted["node_id"] is None:
            return Page([], None)
    if indexed := _most_selective(wanted):
        rows = rows.filter(**{indexed: wanted.pop(indexed)})
    found: list[Job] = []
    last: UUID | None = None
    batch = _BATCH_ROWS if wanted or meta else min(limit + 1, _BATCH_ROWS)
    for read, job in enumerate(_newest_first(rows, cursor, batch)):
        if len(found) == limit or read == limits.ROWS_READ:
            return Page(found, encode_cursor(last) if last else None)
        last = job.uuid
        if _matches(job, wanted, meta):
            found.append(job)
    return Page(found, None)


def _most_selective(wanted: Mapping[str, Any]) -> str | None:
    """Return the filter that leaves the fewest rows: most jobs are decided, and there are more images than nodes."""
    if wanted.get("status") in UNDECIDED:
        return "status"
    return next((name for name in ("image", "node_id", "status") if name in wanted), None)


def _matches(job: Job, wanted: Mapping[str, Any], meta: Mapping[str, str]) -> bool:
    return all(getattr(job, name) == value for name, value in wanted.items()) and all(
        job.meta.get(key) == value for key, value in meta.items()
    )


def _newest_first(rows: QuerySet[Job], cursor: UUID | None, batch: int) -> Iterator[Job]:
    """Yield jobs in batches, each a bounded read of the index, so that no database cursor stays open."""
    rows = rows.defer(*_UNSHOWN).select_related("node").order_by("-uuid")
    while True:
        jobs = list(rows.filter(uuid__lt=cursor)[:batch] if cursor else rows[:batch])
        yield from jobs
        if len(jobs) < batch:
            return
        cursor = jobs[-1].uuid


def _created_between(after: datetime | None, before: datetime | None) -> QuerySet[Job]:
    """Return the jobs of that time, by their UUIDs (version 7: milliseconds in the upper 48 bits), which bounds the scan."""
    rows = Job.objects.all()
    if after is not None:
        rows = rows.filter(uuid__gte=_first_uuid(math.floor(after.timestamp() * 1000) + 1))
    if before is not None:
        rows = rows.filter(uuid__lt=_first_uuid(math.ceil(before.timestamp() * 1000)))
    return rows


def _first_uuid(milliseconds: int) -> UUID:
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def encode_cursor(last: UUID) -> str:
    """Return the cursor after a row, opaque to clients."""
    return urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_cursor(text: str) -> UUID:
    """Return the row of a cursor. Raise `ValueError` if it is invalid; any UUID is a harmless position."""
    cursor = UUID(bytes=urlsafe_b64decode(text.encode("ascii") + b"=="))  # whose errors are all kinds of `ValueError`
    if encode_cursor(cursor) != text:
        raise ValueError("not a cursor")
    return cursor
