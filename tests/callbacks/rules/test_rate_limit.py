"""How much may be sent per second, as a time before which nothing more is sent. No database."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbacks.rules.rate_limit import RateLimit, after_sending
from orchestrator_site.base.intervals import DeliveryIntervals

pytestmark = pytest.mark.stateless

START = datetime(2030, 1, 1, tzinfo=UTC)
INTERVALS = DeliveryIntervals(burst=10.0)


def test_the_stricter_of_both_limits_counts() -> None:
    limit = RateLimit(events=10, size=1000)
    assert limit.seconds(5, 100) == 0.5
    assert limit.seconds(5, 2000) == 2.0


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.001, 2)), min_size=1, max_size=60))
def test_no_more_is_sent_than_the_rate_allows_after_a_burst(steps: list[tuple[float, float]]) -> None:
    # Given a sender that sends whenever it may, pieces that take between no time and 2 s at the permitted rate
    now, until, sent = START, None, 0.0
    for pause, seconds in steps:
        now += timedelta(seconds=pause)
        now = max(now, until or now)
        until = after_sending(until, now, seconds, INTERVALS)
        sent += seconds

        # I expect it never to be ahead of the rate by more than the burst and the last piece
        assert sent <= (now - START).total_seconds() + INTERVALS.burst + seconds + 0.01


def test_a_burst_is_not_held_up_and_what_was_not_used_is_saved_for_no_longer() -> None:
    # Given that nothing was sent for long, I expect ten seconds' worth to go at once, and no more
    until = after_sending(None, START, 9.9, INTERVALS)
    assert until < START
    assert after_sending(until, START, 0.2, INTERVALS) > START

    # And the same after any pause
    later = START + timedelta(days=1)
    assert after_sending(until, later, 10.1, INTERVALS) == later + timedelta(seconds=0.1)
