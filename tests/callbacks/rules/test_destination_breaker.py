"""What a destination may be sent, by what it has answered so far. No database: the rows are never saved."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from callbacks.models import Destination
from callbacks.rules import destination_breaker
from callbacks.rules.outcome import Outcome

pytestmark = pytest.mark.stateless

START = datetime(2030, 1, 1, tzinfo=UTC)
MOST = 8
SILENCE = None  # no answer: connection error or time-out
FAILURES = [SILENCE, 500, 502, 503, 599]
ANSWERS = [200, 204, 299, 301, 308, 400, 401, 404, 408, 410, 415, 422, 499]
PAUSES = [30, 60, 120, 240, 480, 600, 600, 600]
LEASE = destination_breaker.LEASE_SECONDS
SECONDS = st.sampled_from([0.001, 1.0, 1.001, 14.0])


def outcome(status: int | None, retry_after: float = 0.0, seconds: float = 0.001) -> Outcome:
    return Outcome(time=START, latency_ms=round(seconds * 1000), status=status, retry_after=retry_after)


def state(destination: Destination) -> dict[str, Any]:
    return {field.name: getattr(destination, field.name) for field in Destination._meta.concrete_fields}


class Host:
    """A destination with a clock that a test turns."""

    def __init__(self, most: int = MOST) -> None:
        self.row = Destination(origin="https://hook.example:443")
        self.now = START
        self.most = most

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def answers(self, *statuses: int | None, token: UUID | None = None, retry_after: float = 0.0, seconds: float = 0.001) -> None:
        for status in statuses:
            destination_breaker.learn(self.row, self.now, token or uuid.uuid4(), outcome(status, retry_after, seconds), self.most)

    def room(self, under_way: int = 0) -> int:
        return destination_breaker.room(self.row, self.now, under_way, self.most)

    def probe(self) -> UUID:
        """Begin a delivery for which there is room, and which is the probe."""
        token = uuid.uuid4()
        assert self.room() == 1
        assert destination_breaker.enter(self.row, self.now, token)
        return token

    def closed_for(self) -> float:
        """Seconds until something may be sent again, seen from now."""
        seconds = [0.0]
        seconds += [(end - self.now).total_seconds() for end in (self.row.open_until, self.row.throttled_until) if end]
        return max(seconds)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def open_host(host: Host) -> Host:
    host.answers(*[500] * 5)
    return host


# -- the breaker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", FAILURES)
def test_five_failures_in_a_row_open_it_for_half_a_minute(host: Host, status: int | None) -> None:
    # Given four failures, I expect it to be sent more
    host.answers(*[status] * 4)
    assert host.room() == 1

    # and after the fifth nothing, for 30 seconds
    host.answers(status)
    assert host.room() == 0
    host.wait(29.999)
    assert host.room() == 0
    host.wait(0.001)
    assert host.room() == 1


@pytest.mark.parametrize("status", [*ANSWERS, 429])
def test_any_other_answer_sets_the_count_back(host: Host, status: int) -> None:
    host.answers(*[500] * 4, status, *[SILENCE] * 4)
    host.wait(60)
    assert not destination_breaker.enter(host.row, host.now, uuid.uuid4()), "the breaker is closed: nobody is a probe"
    assert host.room() == 1


@pytest.mark.parametrize("status", ANSWERS)
def test_answers_that_are_no_failures_never_open_it(host: Host, status: int) -> None:
    host.answers(*[status] * 100)
    assert host.room() == MOST


def test_each_failed_probe_doubles_the_pause_up_to_ten_minutes(open_host: Host) -> None:
    for number, seconds in enumerate(PAUSES):
        assert open_host.closed_for() == seconds
        open_host.wait(seconds)
        open_host.answers(FAILURES[number % len(FAILURES)], token=open_host.probe())


@pytest.mark.parametrize("status", [*ANSWERS, 429])
def test_a_probe_that_is_answered_closes_it_and_the_pauses_begin_anew(open_host: Host, status: int) -> None:
    # Given a breaker that has opened twice
    open_host.wait(30)
    open_host.answers(500, token=open_host.probe())

    # When the next probe is answered
    open_host.wait(60)
    open_host.answers(status, token=open_host.probe())

    # I expect no probe any more, five failures to open it, and 30 seconds
    open_host.wait(600)
    assert not destination_breaker.enter(open_host.row, open_host.now, uuid.uuid4())
    open_host.answers(*[500] * 4)
    assert open_host.room() == 1
    open_host.answers(500)
    assert open_host.closed_for() == 30


def test_one_probe_at_a_time_until_its_lease_runs_out(open_host: Host) -> None:
    # Given a probe that says nothing of itself
    open_host.wait(30)
    open_host.probe()

    # When its time is not over, I expect no other
    open_host.wait(LEASE - 0.001)
    assert open_host.room() == 0

    # and then one
    open_host.wait(0.001)
    taking_over = open_host.probe()
    assert open_host.room() == 0
    open_host.answers(500, token=taking_over)
    assert open_host.closed_for() == 60


def test_a_probe_that_comes_back_late_does_not_undo_the_next_ones_work(open_host: Host) -> None:
    # Given a probe that was taken for dead, and another in its place
    open_host.wait(30)
    slow = open_host.probe()
    open_host.wait(LEASE)
    second = open_host.probe()

    # When the slow one fails, I expect the other still to be the probe
    open_host.answers(SILENCE, token=slow)
    assert open_host.room() == 0
    open_host.answers(SILENCE, token=second)
    assert open_host.closed_for() == 60


@pytest.mark.parametrize("late", [1, 2, 50])
def test_failures_of_what_was_under_way_when_it_opened_say_nothing_new(open_host: Host, late: int) -> None:
    open_host.wait(10)
    open_host.answers(*[500] * late)
    assert open_host.closed_for() == 20

    # not even to a probe under way
    open_host.wait(20)
    probe = open_host.probe()
    open_host.answers(*[SILENCE] * late)
    open_host.answers(500, token=probe)
    assert open_host.closed_for() == 60


def test_a_late_answer_of_what_was_under_way_closes_it(open_host: Host) -> None:
    open_host.answers(200)
    assert open_host.room() == 2


def test_a_paused_host_is_sent_nothing_however_well_it_is(host: Host) -> None:
    host.answers(200, 200, 200)
    host.row.paused = True
    assert host.room() == 0
    assert destination_breaker.is_closed_to_all(host.row, host.now)


# -- how many at once --------------------------------------------------------------------------------


def test_trust_doubles_with_each_answer_and_ends_with_a_failure(host: Host) -> None:
    rooms = [host.room()]
    for status in (200, 404, 201, 200, 500, 200):
        host.answers(status)
        rooms.append(host.room())
    assert rooms == [1, 2, 4, 8, 8, 1, 2]


@given(most=st.integers(1, 64), answers=st.lists(st.sampled_from(FAILURES + ANSWERS)), under_way=st.integers(0, 70))
def test_never_more_at_once_than_configured(most: int, answers: list[int | None], under_way: int) -> None:
    host = Host(most)
    host.answers(*answers, 200)
    assert 0 <= host.room(under_way) <= max(0, most - under_way)


@pytest.mark.parametrize("most", [1, 2, 3, 8, 64])
def test_a_host_that_answers_well_is_proven_whatever_it_may_have_at_once(most: int) -> None:
    host = Host(most)
    assert not destination_breaker.is_proven(host.row)
    host.answers(200)
    assert destination_breaker.is_proven(host.row)
    host.answers(*[200] * 10)
    assert host.room() == most
    host.answers(500)
    assert not destination_breaker.is_proven(host.row)


# -- the pace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 500, SILENCE])
@pytest.mark.parametrize("seconds", [1.1, 14.0])
def test_a_slow_answer_proves_nothing_and_takes_proof_away(host: Host, status: int | None, seconds: float) -> None:
    # Given a host whose answers are slow, I expect it not to be proven, however many there are
    host.answers(*[status] * 10, seconds=seconds)
    assert not destination_breaker.is_proven(host.row)

    # and no more is one that was quick before
    quick = Host()
    quick.answers(*[200] * 10)
    quick.answers(status, seconds=seconds)
    assert not destination_breaker.is_proven(quick.row)


@pytest.mark.parametrize(("seconds", "room"), [(1.0, 8), (1.1, 4), (2.5, 2), (4.0, 2), (8.0, 1), (14.0, 1)])
def test_a_host_gets_the_fewer_at_once_the_slower_it_is(host: Host, seconds: float, room: int) -> None:
    host.answers(*[200] * 10, seconds=seconds)
    assert host.room() == room


@pytest.mark.parametrize(("seconds", "quick"), [([1.1], 2), ([14.0], 4), ([14.0] * 100, 4), ([14.0, 1.1], 4)])
def test_quick_answers_prove_a_slow_host_again_the_sooner_the_quicker_it_was(
    host: Host, seconds: list[float], quick: int
) -> None:
    # Given a host that has been slow
    host.answers(200)
    for one in seconds:
        host.answers(200, seconds=one)

    # I expect so many quick answers to make up for it, and one fewer not to
    host.answers(*[200] * (quick - 1))
    assert not destination_breaker.is_proven(host.row)
    host.answers(200)
    assert destination_breaker.is_proven(host.row)


def test_a_second_is_quick(host: Host) -> None:
    host.answers(200, seconds=1.0)
    assert destination_breaker.is_proven(host.row)


# -- the throttle ------------------------------------------------------------------------------------


def test_429_slows_the_host_down_by_the_schedule(host: Host) -> None:
    # Given a host in full swing that asks to slow down, again and again
    host.answers(*[200] * 4)
    for seconds in (1, 5, 30, 120, 600, 600, 600):
        host.answers(429)

        # I expect longer and longer pauses, with all that may be added so that not all come at once
        assert seconds <= host.closed_for() <= min(seconds * 1.2, 600)
        assert host.room() == 0
        host.wait(host.closed_for())
        assert host.room() == 1

    # and short ones again once it takes something
    host.answers(200)
    assert host.room() == 2
    host.answers(429)
    assert host.closed_for() <= 1.2


@pytest.mark.parametrize(("asked", "seconds"), [(7, 7), (599, 599), (600, 600), (3600, 600), (86400, 600)])
def test_retry_after_is_believed_up_to_ten_minutes(host: Host, asked: float, seconds: float) -> None:
    host.answers(429, retry_after=asked)
    assert host.closed_for() == seconds


def test_those_that_are_told_together_count_once(host: Host) -> None:
    # Given eight deliveries under way that are all told to slow down
    host.answers(*[429] * 8)
    assert host.closed_for() <= 1.2

    # When the next one is told so as well, I expect the second step
    host.wait(1.2)
    host.answers(429)
    assert 5 <= host.closed_for() <= 6


def test_a_pause_is_never_shortened(host: Host) -> None:
    host.answers(429, retry_after=300)
    host.wait(1)
    for status in (429, 200, 404, 500, SILENCE):
        host.answers(status, retry_after=1)
        assert host.closed_for() >= 299


@pytest.mark.parametrize("status", [503, 500])
def test_a_failure_slows_its_event_down_and_not_the_host(host: Host, status: int) -> None:
    host.answers(status, retry_after=300)
    assert host.room() == 1


# -- all of it ---------------------------------------------------------------------------------------


@given(
    history=st.lists(st.tuples(st.sampled_from([*FAILURES, *ANSWERS, 429]), SECONDS)),
    status=st.sampled_from([*FAILURES, *ANSWERS, 429]),
    seconds=SECONDS,
    most=st.sampled_from([1, 2, 8]),
)
def test_what_teaches_nothing_changes_nothing(
    history: list[tuple[int | None, float]], status: int | None, seconds: float, most: int
) -> None:
    host = Host(most)
    for earlier, took in history:
        host.answers(earlier, seconds=took)
    before = state(host.row)
    if destination_breaker.learns_nothing(host.row, outcome(status, seconds=seconds), most):
        host.answers(status, seconds=seconds)
        assert state(host.row) == before


class AnyHistory(RuleBasedStateMachine):
    """Deliveries that begin, end and vanish at any time, against the rules as the issue states them."""

    under_way = Bundle("under_way")

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.failures = 0  # in a row
        self.failed_probes: int | None = None  # since it opened; None: it is closed
        self.opened_at = START
        self.probe: tuple[UUID, datetime] | None = None  # and when it began

    def half_open(self) -> bool:
        pause = timedelta(seconds=PAUSES[min(self.failed_probes or 0, len(PAUSES) - 1)])
        return self.failed_probes is not None and self.host.now >= self.opened_at + pause

    def probe_lives(self) -> bool:
        return self.probe is not None and self.host.now < self.probe[1] + timedelta(seconds=LEASE)

    @rule(seconds=st.sampled_from([0.5, 15.0, 29.0, 30.0, LEASE - 1, LEASE, 300.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.host.wait(seconds)

    @rule(target=under_way)
    def somebody_begins(self) -> UUID:
        token = uuid.uuid4()
        if self.host.room():
            assert destination_breaker.enter(self.host.row, self.host.now, token) == (self.failed_probes is not None)
            if self.failed_probes is not None:
                self.probe = (token, self.host.now)
        return token

    @rule(token=consumes(under_way), status=st.sampled_from(FAILURES))
    def one_fails(self, token: UUID, status: int | None) -> None:
        self.host.answers(status, token=token)
        if self.failed_probes is None:
            self.failures += 1
            if self.failures == 5:
                self.failed_probes, self.opened_at, self.probe = 0, self.host.now, None
        elif self.probe is not None and self.probe[0] == token:
            self.failed_probes, self.opened_at, self.probe = self.failed_probes + 1, self.host.now, None

    @rule(token=consumes(under_way), status=st.sampled_from(ANSWERS))
    def one_is_answered(self, token: UUID, status: int) -> None:
        self.host.answers(status, token=token)
        self.failures, self.failed_probes, self.probe = 0, None, None

    @rule(token=consumes(under_way))
    def one_vanishes(self, token: UUID) -> None:
        """Its process was killed."""

    @invariant()
    def it_is_sent_what_the_rules_allow(self) -> None:
        if self.failed_probes is None:
            assert 1 <= self.host.room() <= MOST
        else:
            assert self.host.room() == (1 if self.half_open() and not self.probe_lives() else 0)


test_any_history = AnyHistory.TestCase
