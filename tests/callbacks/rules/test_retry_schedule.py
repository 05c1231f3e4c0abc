"""When an event is tried again."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbacks.rules import retry_schedule
from orchestrator_site.base.intervals import DeliveryIntervals

pytestmark = pytest.mark.stateless

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400.0
INTERVALS = DeliveryIntervals()


def requested(status: int, header: str, date: str | None = None) -> float:
    return retry_schedule.retry_after(status, header, NOW, INTERVALS, date)


@given(st.integers(1, 1000), st.floats(0, 1))
def test_a_delay_is_the_schedule_plus_up_to_a_fifth(failures: int, fraction: float) -> None:
    step = [1, 5, 30, 120, 600, 1800, 3600, 7200, 14400][min(failures, 9) - 1]
    assert step <= retry_schedule.delay(failures, INTERVALS, fraction=fraction) <= step * 1.2
    assert step <= retry_schedule.delay(failures, INTERVALS) <= step * 1.2


@given(st.integers(1, 20), st.floats(0, DAY))
def test_a_delay_is_never_shorter_than_requested(failures: int, asked: float) -> None:
    assert retry_schedule.delay(failures, INTERVALS, asked) >= asked


@given(st.sampled_from([429, 503]), st.integers(0, 10**400))
def test_retry_after_in_seconds_is_honored_up_to_a_day(status: int, seconds: int) -> None:
    assert requested(status, str(seconds)) == min(float(min(seconds, 10**9)), DAY)


@given(st.timedeltas(timedelta(days=-3), timedelta(days=3)))
def test_retry_after_as_a_date_is_honored_up_to_a_day(ahead: timedelta) -> None:
    then = (NOW + ahead).replace(microsecond=0)
    expected = min(max((then - NOW).total_seconds(), 0.0), DAY)
    assert requested(429, format_datetime(then, usegmt=True)) == expected
    assert requested(503, format_datetime(then)) == expected


@given(st.timedeltas(timedelta(days=-900), timedelta(days=900)), st.integers(0, int(DAY)))
def test_a_date_is_compared_to_the_clock_of_the_destination(fast: timedelta, seconds: int) -> None:
    date, then = (format_datetime(NOW + fast + timedelta(seconds=after), usegmt=True) for after in (0, seconds))
    assert requested(503, then, date) == seconds


@given(st.text())
def test_any_retry_after_is_a_time_up_to_a_day(header: str) -> None:
    assert 0.0 <= requested(429, header) <= DAY
    assert 0.0 <= requested(429, format_datetime(NOW), header) <= DAY


@pytest.mark.parametrize("header", ["-5", "soon", "", "1e9", "5.5", "Wed, 99 Foo 2026 00:00:00 GMT", "²"])
def test_an_invalid_retry_after_is_ignored(header: str) -> None:
    assert requested(429, header) == 0.0


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500, 502])
def test_retry_after_with_any_other_status_is_ignored(status: int) -> None:
    assert requested(status, "100") == 0.0
