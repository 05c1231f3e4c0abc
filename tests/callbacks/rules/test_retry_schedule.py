"""When the next try is due, and when there is none."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbacks.rules import event_verdict, retry_schedule
from callbacks.rules.event_verdict import Dead, Delivered, Retry
from callbacks.rules.outcome import Outcome

pytestmark = pytest.mark.stateless

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400.0
LOG, EXIT = "orchestrator.job.log", "orchestrator.job.exit"


def outcome(status: int | None, retry_after: float = 0.0) -> Outcome:
    return Outcome(time=NOW, latency_ms=1, status=status, retry_after=retry_after)


@given(st.integers(1, 1000), st.floats(0, 1))
def test_the_schedule_holds_with_up_to_a_fifth_more(failures: int, fraction: float) -> None:
    step = [1, 5, 30, 120, 600, 1800, 3600, 7200, 14400][min(failures, 9) - 1]
    assert step <= retry_schedule.delay(failures, fraction=fraction) <= step * 1.2
    assert step <= retry_schedule.delay(failures) <= step * 1.2


@given(st.integers(1, 20), st.floats(0, DAY))
def test_it_is_never_sooner_than_the_destination_asked(failures: int, asked: float) -> None:
    assert retry_schedule.delay(failures, asked) >= asked


@given(st.sampled_from([429, 503]), st.integers(0, 10**400))
def test_seconds_are_believed_up_to_a_day(status: int, seconds: int) -> None:
    assert retry_schedule.retry_after(status, str(seconds), NOW) == min(float(min(seconds, 10**9)), DAY)


@given(st.timedeltas(timedelta(days=-3), timedelta(days=3)))
def test_dates_are_believed_up_to_a_day(ahead: timedelta) -> None:
    then = (NOW + ahead).replace(microsecond=0)
    expected = min(max((then - NOW).total_seconds(), 0.0), DAY)
    assert retry_schedule.retry_after(429, format_datetime(then, usegmt=True), NOW) == expected
    assert retry_schedule.retry_after(503, format_datetime(then), NOW) == expected


@given(st.timedeltas(timedelta(days=-900), timedelta(days=900)), st.integers(0, int(DAY)))
def test_dates_are_by_the_clock_of_the_destination(fast: timedelta, seconds: int) -> None:
    date, then = (format_datetime(NOW + fast + timedelta(seconds=after), usegmt=True) for after in (0, seconds))
    assert retry_schedule.retry_after(503, then, NOW, date) == seconds


@given(st.text())
def test_whatever_the_header_holds_it_is_a_time_from_nothing_to_a_day(header: str) -> None:
    assert 0.0 <= retry_schedule.retry_after(429, header, NOW) <= DAY
    assert 0.0 <= retry_schedule.retry_after(429, format_datetime(NOW), NOW, header) <= DAY


@pytest.mark.parametrize("header", ["-5", "soon", "", "1e9", "5.5", "Wed, 99 Foo 2026 00:00:00 GMT", "²"])
def test_nonsense_asks_for_nothing(header: str) -> None:
    assert retry_schedule.retry_after(429, header, NOW) == 0.0


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500, 502])
def test_other_statuses_ask_for_nothing(status: int) -> None:
    assert retry_schedule.retry_after(status, "100", NOW) == 0.0


@given(st.integers(200, 299), st.booleans(), st.integers(1, 20))
def test_2xx_is_delivered(status: int, bulk_refused: bool, tries: int) -> None:
    verdict = event_verdict.judge(outcome(status), type_=LOG, tries=tries, silences=0, bulk_refused=bulk_refused)
    assert verdict == Delivered()


@pytest.mark.parametrize("status", [410, 415])
def test_two_answers_are_final(status: int) -> None:
    assert event_verdict.judge(outcome(status), type_=EXIT, tries=1, silences=0, bulk_refused=False) == Dead()


@given(st.integers(100, 599).filter(lambda status: not 200 <= status < 300 and status not in (410, 415)))
def test_everything_else_is_tried_ten_times_and_logs_fewer(status: int) -> None:
    def tries_until_dead(type_: str, bulk_refused: bool) -> int:
        return next(
            tries
            for tries in range(1, 100)
            if event_verdict.judge(outcome(status), type_=type_, tries=tries, silences=0, bulk_refused=bulk_refused) == Dead()
        )

    assert tries_until_dead(EXIT, False) == tries_until_dead(EXIT, True) == 10
    assert tries_until_dead(LOG, False) == 5
    assert tries_until_dead(LOG, True) == 1


@given(st.integers(0, 1000), st.integers(1, 1000), st.sampled_from([LOG, EXIT]), st.booleans())
def test_silence_spends_no_try(tries: int, silences: int, type_: str, bulk_refused: bool) -> None:
    verdict = event_verdict.judge(outcome(None), type_=type_, tries=tries, silences=silences, bulk_refused=bulk_refused)
    assert isinstance(verdict, Retry)
    assert verdict.seconds <= 14400 * 1.2


@given(st.integers(1, 9), st.floats(0, DAY))
def test_a_retry_waits_as_the_answer_asked(tries: int, asked: float) -> None:
    verdict = event_verdict.judge(outcome(503, asked), type_=EXIT, tries=tries, silences=0, bulk_refused=False)
    assert isinstance(verdict, Retry)
    assert verdict.seconds >= asked
