"""Samples of how many breakers are open: the most of each minute, by the database's clock."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from callbacks.delivery import breaker_samples
from callbacks.models import BreakerSample, Destination
from orchestrator_site.base.db.statements import execute_together
from orchestrator_site.base.intervals import DeliveryIntervals, RelayIntervals
from tests.helpers.factories import minute

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


def make_destinations() -> None:
    """Make destinations with breakers that are closed, open, half open, and half open while events wait."""
    for host, values in {
        "closed": {"waiting": True},
        "open": {"open_until": Now() + MINUTE},
        "half-open": {"open_until": Now() - MINUTE},
        "probed": {"open_until": Now() - MINUTE, "waiting": True},
    }.items():
        destination = Destination.objects.create(origin=f"https://{host}.example", used_at=timezone.now())
        Destination.objects.filter(pk=destination.pk).update(**values)


def counts() -> list[int]:
    return list(BreakerSample.objects.values_list("open_breakers", flat=True))


def test_open_breakers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a breaker that is open, and one that is half open while events wait
    make_destinations()

    # I expect a sample to count both, and the duty that looks for them more often to find both
    earliest = minute()
    execute_together([breaker_samples.taking()])
    sample = BreakerSample.objects.get()
    assert earliest <= sample.minute <= minute()
    assert sample.open_breakers == breaker_samples.open_breakers().count() == 2
    assert RelayIntervals().samples_of_open_breakers < DeliveryIntervals().breaker_open

    # and to stop at the limit
    BreakerSample.objects.all().delete()
    monkeypatch.setattr(breaker_samples, "COUNTED_AT_MOST", 1)
    execute_together([breaker_samples.taking()])
    assert counts() == [1]


def test_a_sample_says_that_no_breaker_was_open() -> None:
    execute_together([breaker_samples.taking()])
    assert counts() == [0]


@pytest.mark.parametrize(("before", "after"), [(0, [0, 2]), (2, [2, 2]), (7, [7, 7])])
def test_a_minute_keeps_the_largest_count(before: int, after: list[int]) -> None:
    # Given a count of this minute, and of the next in case that one begins
    make_destinations()
    BreakerSample.objects.bulk_create(BreakerSample(minute=minute(ago), open_breakers=before) for ago in (0, -1))

    # When two breakers are open, I expect one of them to have the larger number
    execute_together([breaker_samples.taking()])
    assert sorted(counts()) == after


def test_old_samples_are_deleted() -> None:
    kept = int(RelayIntervals().samples_kept) // 60
    BreakerSample.objects.bulk_create(BreakerSample(minute=minute(ago), open_breakers=0) for ago in (0, kept - 1, kept + 1))
    assert breaker_samples.old().delete()[0] == 1
    assert len(counts()) == 2
