"""What becomes of an event after an attempt."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callbacks.rules import event_verdict
from callbacks.rules.event_verdict import Dead, Delivered, Retry, Verdict
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.intervals import DeliveryIntervals

pytestmark = pytest.mark.stateless

LOG, EXIT = "orchestrator.job.log", "orchestrator.job.exit"


def judge(
    status: int | None,
    type_: str = EXIT,
    *,
    tries: int = 1,
    unanswered: int = 0,
    log_refused: bool = False,
    retry_after: float = 0.0,
) -> Verdict:
    outcome = Outcome(time=datetime(2026, 1, 1, tzinfo=UTC), latency_ms=1, status=status, retry_after=retry_after)
    return event_verdict.judge(
        outcome, DeliveryIntervals(), type_=type_, tries=tries, unanswered=unanswered, best_effort_refused=log_refused
    )


@given(st.integers(200, 299), st.booleans(), st.integers(1, 20))
def test_an_event_that_is_answered_2xx_is_delivered(status: int, log_refused: bool, tries: int) -> None:
    assert judge(status, LOG, tries=tries, log_refused=log_refused) == Delivered()


@pytest.mark.parametrize("status", [410, 415])
def test_410_and_415_are_permanent(status: int) -> None:
    assert judge(status) == Dead()


@given(st.integers(100, 599).filter(lambda status: not 200 <= status < 300 and status not in (410, 415)))
def test_other_answers_allow_ten_tries_and_fewer_for_logs(status: int) -> None:
    def tries_until_dead(type_: str, log_refused: bool) -> int:
        return next(tries for tries in range(1, 100) if judge(status, type_, tries=tries, log_refused=log_refused) == Dead())

    assert tries_until_dead(EXIT, False) == tries_until_dead(EXIT, True) == 10
    assert tries_until_dead(LOG, False) == 5
    assert tries_until_dead(LOG, True) == 1


def test_a_proxy_that_was_down_for_long_is_tried_again_within_ten_minutes() -> None:
    outcome = Outcome(time=datetime(2026, 1, 1, tzinfo=UTC), latency_ms=1, by_service=True)
    for unanswered in (1, 5, 100):
        verdict = event_verdict.judge(
            outcome, DeliveryIntervals(), type_=EXIT, tries=0, unanswered=unanswered, best_effort_refused=False
        )
        assert isinstance(verdict, Retry)
        assert verdict.seconds <= 600


@given(st.integers(0, 1000), st.integers(1, 1000), st.sampled_from([LOG, EXIT]), st.booleans())
def test_an_unanswered_attempt_is_not_a_try(tries: int, unanswered: int, type_: str, log_refused: bool) -> None:
    verdict = judge(None, type_, tries=tries, unanswered=unanswered, log_refused=log_refused)
    assert isinstance(verdict, Retry)
    assert verdict.seconds <= 14400 * 1.2


@given(st.integers(1, 9), st.floats(0, 86400))
def test_a_retry_is_not_sooner_than_requested(tries: int, asked: float) -> None:
    verdict = judge(503, tries=tries, retry_after=asked)
    assert isinstance(verdict, Retry)
    assert verdict.seconds >= asked
