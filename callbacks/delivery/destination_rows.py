"""The rows of destinations: created when first used, locked, and deleted when unused."""

from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from callbacks.models import Destination, Subscription
from orchestrator_site.base.db.statements import Statement, sql
from orchestrator_site.base.db.transactions import short_transaction
from orchestrator_site.base.intervals import DestinationIntervals

_DELETED_BATCH: Final = 500
# In this order: a row that is being deleted is waited for, and then added again.
_TOUCH: Final = "UPDATE callbacks_destination SET used_at = {now} WHERE origin = %s AND used_at < {later}"
_ADD: Final = """
INSERT INTO callbacks_destination (origin, used_at, paused, failures, openings, throttles, "window", waiting)
SELECT %s, {now}, FALSE, 0, 0, 0, 1, FALSE WHERE NOT EXISTS (SELECT 1 FROM callbacks_destination WHERE origin = %s)
ON CONFLICT DO NOTHING"""
BREAKER_FIELDS: Final[tuple[str, ...]] = (  # what `destination_breaker` changes of a row
    "failures",
    "openings",
    "open_until",
    "probe_token",
    "probe_until",
    "throttles",
    "throttled_until",
    "window",
    "slowness",
)


def max_in_flight() -> int:
    """Return the configured maximum of concurrent deliveries to one destination."""
    maximum: int = settings.CONFIGURATION.deliveries_per_host
    return maximum


def registration(origin: str, intervals: DestinationIntervals = DestinationIntervals()) -> list[Statement]:
    """Return the statements that make the row of an origin exist. Until their transaction ends, it is not deleted as unused."""
    return [(sql(_TOUCH), [origin, -intervals.touch]), (sql(_ADD), [origin, origin])]


def with_database_time(rows: QuerySet[Destination] | None = None) -> QuerySet[Any]:
    """Annotate rows (all by default) with the database's time as `now`, to which the times in them are compared."""
    return (Destination.objects.all() if rows is None else rows).annotate(now=Now())


def lock(pk: int) -> tuple[Destination, datetime]:
    """Lock the row until the transaction ends; return it with the database's time.

    Lock subscriptions first if both are needed, and several destinations in the order of their keys: the order is the same
    everywhere. New subscriptions may refer to the row meanwhile.

    Raises:
        Destination.DoesNotExist: It was deleted.
    """
    destination = with_database_time().select_for_update(no_key=True).get(pk=pk)
    return destination, destination.now


def lock_if_free(pk: int) -> tuple[Destination, datetime] | None:
    """Lock the row as `lock` does. Return None if it is locked by another transaction, or was deleted."""
    destination = with_database_time().select_for_update(no_key=True, skip_locked=True).filter(pk=pk).first()
    return None if destination is None else (destination, destination.now)


def in_flight(destination: Destination, now: datetime | Now) -> int:
    """Count the deliveries to it that are under way. The count is exact while its row is locked."""
    return destination.subscriptions.filter(lease_token__isnull=False, lease_until__gt=now).count()


def unused(intervals: DestinationIntervals = DestinationIntervals()) -> QuerySet[Destination]:
    """Return the destinations that no stream has gone to for a while, without paused ones."""
    streams = Subscription.objects.filter(destination=OuterRef("pk"))
    last_used = Now() - timedelta(seconds=intervals.unused)
    return Destination.objects.filter(~Exists(streams), paused=False, used_at__lt=last_used)


def delete_unused(intervals: DestinationIntervals = DestinationIntervals()) -> int:
    """Delete a batch of unused destinations; return how many."""
    with short_transaction():
        # Locked, so that `registration`, which has to move `used_at` first, adds a new row rather than use one of these.
        batch = list(unused(intervals).select_for_update(of=("self",)).values_list("pk", flat=True)[:_DELETED_BATCH])
        Destination.objects.filter(pk__in=batch).delete()
    return len(batch)
