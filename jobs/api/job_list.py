"""Reads jobs for the API. The cost of a page does not grow with the table.

A page reads one index from the newest job to the oldest. Each filter has one, on SQLite with the exception of `meta`. If there
are other filters, they are applied to at most `ROWS_READ` rows of it, so a page may be short, even empty, and still have a
next one.
"""

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, cast
from uuid import UUID

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from django.conf import settings
from django.db import connection
from django.db.models import Q, QuerySet

from jobs.api import limits
from jobs.models import Job, MetaEntry, Node
from orchestrator_site.base.db.column_statistics import first_in_index_order
from orchestrator_site.base.http.pagination import Page

_BLOCK: Final = 16  # bytes of a UUID, and of a block of AES
_FIRST_ROWS = 128  # of a scan; each further batch has twice as many
_INDEXED = ("namespace", "status", "image", "node_id")  # columns with an index, newest first
# Not shown: secrets, each of which costs a decryption, and values that may be large.
_UNSHOWN = ("environment", "command", "log_tail_stdout", "log_tail_stderr")


def find_job(namespace: str, job_id: str) -> Job | None:
    """Return a job with its node."""
    return _shown(Job.objects.filter(namespace=namespace, id=job_id)).first()


def find_uuid(namespace: str, job_id: str) -> UUID | None:
    """Return the primary key of a job."""
    return Job.objects.filter(namespace=namespace, id=job_id).values_list("uuid", flat=True).first()


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

    Times are exclusive, to the millisecond. `wanted` may have `namespace`, `status`, `image` and `node` (a name).
    """
    if "node" in wanted:
        wanted["node_id"] = Node.objects.filter(name=wanted.pop("node")).values_list("pk", flat=True).first()
        if wanted["node_id"] is None:
            return Page([], None)
    between = _between(created_after, created_before, cursor)
    indexes = [rows.filter(between) for rows in _indexes(wanted, meta)]
    match len(wanted) + len(meta):
        case 0:
            return _page(Job.objects.filter(between), limit)
        case 1 if indexes:
            return _page(_jobs_of(indexes[0], limit + 1), limit)
    uuids, last = _find_matching(indexes or [Job.objects.filter(between)], limit, wanted, meta)
    jobs = _shown(Job.objects.filter(uuid__in=uuids)).order_by("-uuid")
    # Once more, because a status may have changed. In the query, PostgreSQL might look for all jobs with one of the values.
    matching = [job for job in jobs if all(getattr(job, name) == value for name, value in wanted.items())]
    return Page(matching, encode_cursor(last) if last else None)


def newest_matching(limit: int, wanted: Mapping[str, Any], meta: Mapping[str, str]) -> tuple[list[UUID], bool]:
    """Return the newest jobs that match, at most `limit`, and whether there may be more. At most `ROWS_READ` rows are read.

    `wanted` has values of columns.
    """
    uuids, last = _find_matching(_indexes(wanted, meta) or [Job.objects.all()], limit, wanted, meta)
    return uuids, last is not None


def _page(jobs: QuerySet[Job], limit: int) -> Page[Job]:
    """Return the newest of jobs that all match."""
    found = list(_shown(jobs).order_by("-uuid")[: limit + 1])
    return Page(found[:limit], encode_cursor(found[limit - 1].uuid) if len(found) > limit else None)


def _indexes(wanted: Mapping[str, Any], meta: Mapping[str, str]) -> list[QuerySet[Any]]:
    """Return the rows of an index for each filter that has one; their `uuid` is that of a job that passes the filter."""
    indexed = {name: value for name, value in wanted.items() if name in _INDEXED}
    rows: list[QuerySet[Any]] = [Job.objects.filter(**{name: value}) for name, value in indexed.items()]
    if connection.vendor == "postgresql":
        rows += [MetaEntry.objects.filter(key=key, value=value) for key, value in meta.items()]
    return rows


def _find_matching(
    indexes: list[QuerySet[Any]], limit: int, wanted: Mapping[str, Any], meta: Mapping[str, str]
) -> tuple[list[UUID], UUID | None]:
    """Return the first jobs that match, at most `limit`, and the last job that was read; None if there are no more.

    Batches keep no database cursor open. They have only the columns to compare, since whole jobs take ten times as long.
    """
    found: list[UUID] = []
    columns, values_wanted = ["uuid", *wanted], [*wanted.values()]
    if meta:
        columns.append("meta")
    last = None
    unread, size = limits.ROWS_READ, max(_FIRST_ROWS, limit + 1)
    while unread:
        size = min(size, unread)
        rows = _furthest(indexes, size)
        batch = list(_jobs_of(rows, size).order_by("-uuid").values_list(*columns))
        for uuid, *values in batch:
            if len(found) == limit:
                return found, last
            last = uuid
            members = values.pop() if meta else {}
            if values == values_wanted and meta.items() <= members.items():
                found.append(uuid)
        if len(batch) < size:
            return found, None
        indexes = [rows.filter(uuid__lt=last) for rows in indexes]
        unread -= size
        size *= 2
    return found, last


def _furthest(indexes: list[QuerySet[Any]], size: int) -> QuerySet[Any]:
    """Return the index of which `size` rows go back furthest: here, its filter is the most selective."""
    if len(indexes) == 1:
        return indexes[0]

    def oldest(rows: QuerySet[Any]) -> UUID:
        job = Job.objects.filter(uuid=first_in_index_order(rows, "uuid", limit=1, offset=size - 1))
        return next(iter(job.values_list("uuid", flat=True)), UUID(int=0))

    return min(indexes, key=oldest)


def _jobs_of(rows: QuerySet[Any], limit: int) -> QuerySet[Job]:
    """Return the jobs of the first rows of an index.

    The subquery reads nothing but the index. With other columns in it, PostgreSQL may prefer to walk through all jobs from the
    newest to the oldest, although those that match are old.
    """
    return Job.objects.filter(uuid__in=first_in_index_order(rows, "uuid", limit))


def _shown(jobs: QuerySet[Job]) -> QuerySet[Job]:
    return jobs.defer(*_UNSHOWN).select_related("node")


def _between(after: datetime | None, before: datetime | None, cursor: UUID | None) -> Q:
    """Return a condition on UUIDs (version 7: milliseconds in the upper 48 bits) for that time, and for jobs after the cursor."""
    condition = Q()
    if after is not None:
        condition &= Q(uuid__gte=_first_uuid(math.floor(after.timestamp() * 1000) + 1))
    if before is not None:
        condition &= Q(uuid__lt=_first_uuid(math.ceil(before.timestamp() * 1000)))
    if cursor is not None:
        condition &= Q(uuid__lt=cursor)
    return condition


def _first_uuid(milliseconds: int) -> UUID:
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def encode_cursor(last: UUID) -> str:
    """Return the cursor after a row, sealed: the row may be one that the client must not know of, of another namespace."""
    return urlsafe_b64encode(_crypt(last.bytes, "encryptor")).decode().rstrip("=")


def decode_cursor(text: str) -> UUID:
    """Return the row of a cursor. Raise `ValueError` if it is invalid; any UUID is a harmless position."""
    sealed = urlsafe_b64decode(text.encode("ascii") + b"==")  # whose errors are all kinds of `ValueError`
    if len(sealed) != _BLOCK:
        raise ValueError("not a cursor")
    cursor = UUID(bytes=_crypt(sealed, "decryptor"))
    if encode_cursor(cursor) != text:
        raise ValueError("not a cursor")
    return cursor


def _crypt(block: bytes, direction: str) -> bytes:
    """Encrypt or decrypt a block of AES. Each block is another UUID, so that one needs no mode and no nonce."""
    return cast("bytes", getattr(_cipher(settings.SECRET_KEY), direction)().update(block))


@lru_cache(maxsize=1)
def _cipher(secret_key: str) -> Cipher[ECB]:
    return Cipher(AES256(sha256(b"cursors of jobs" + secret_key.encode()).digest()), ECB())  # noqa: S305 - a single block
