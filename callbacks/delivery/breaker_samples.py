"""Samples of how many breakers are open, for charts: one per minute, however many relays there are."""

from typing import Any, Final

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from callbacks.models import BreakerSample, Destination
from orchestrator_site.base.db.minutes import ThisMinute
from orchestrator_site.base.db.statements import Statement, sql
from orchestrator_site.base.intervals import RelayIntervals

COUNTED_AT_MOST: Final = 10_000

# As in `open_breakers`. There is a partial index of those that are open or half open.
_TAKE: Final = """
INSERT INTO callbacks_breakersample (minute, open_breakers)
SELECT {minute}, COUNT(*) FROM (
    SELECT 1 FROM callbacks_destination WHERE open_until IS NOT NULL AND (open_until > {now} OR waiting) LIMIT %s
) AS counted WHERE 1 = 1
ON CONFLICT (minute) DO UPDATE SET open_breakers = excluded.open_breakers
WHERE callbacks_breakersample.open_breakers < excluded.open_breakers"""


def open_breakers() -> QuerySet[Destination]:
    """Return the destinations whose breaker is open, or half open while events wait."""
    return Destination.objects.filter(Q(open_until__gt=Now()) | Q(waiting=True), open_until__isnull=False)


def taking() -> Statement:
    """Return the statement that counts the open breakers. A minute keeps the largest of its counts."""
    return sql(_TAKE), [COUNTED_AT_MOST]


def old(intervals: RelayIntervals = RelayIntervals()) -> QuerySet[Any]:
    """Return the samples that no chart shows any more."""
    return BreakerSample.objects.filter(minute__lt=ThisMinute() - int(intervals.samples_kept // 60))
