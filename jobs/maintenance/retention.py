"""Deletes jobs, with their logs and events, once JOB_RETENTION is over."""

from datetime import timedelta

from django.db.models import QuerySet, Subquery
from django.db.models.functions import Now

from jobs import events
from jobs.models import Job, LogChunk
from orchestrator_site.base.db.transactions import delete_in_batches, short_read

_BATCH = 200
_ROWS_PER_DELETE = 20  # a chunk of a log may be large


def expired(retention: timedelta) -> "QuerySet[Job]":
    """Return the jobs that were complete for `retention`, by the database's clock, the oldest first."""
    return Job.objects.filter(completed_at__lt=Now() - retention).order_by("completed_at")


def oldest_expired(retention: timedelta) -> "QuerySet[Job]":
    """Return the expired job that was complete first, to find out whether there is any.

    The order keeps PostgreSQL at the index. Without it, if by its statistics some per cent of the jobs are expired, it reads the
    table from its start, and all of it if they have been deleted.
    """
    return Job.objects.filter(uuid=Subquery(expired(retention).values("uuid")[:1]))


def delete_old_jobs(retention: timedelta) -> int:
    """Delete a batch of expired jobs. Return how many."""
    with short_read():
        jobs = list(expired(retention).values_list("uuid", flat=True)[:_BATCH])
    if jobs:
        events.forget(jobs)
        delete_in_batches(LogChunk.objects.filter(job__in=jobs), _ROWS_PER_DELETE)
        delete_in_batches(Job.objects.filter(uuid__in=jobs), _ROWS_PER_DELETE)
    return len(jobs)
