"""How many deliveries a destination may get, given its answers so far. No database: the rows are never saved."""

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
from orchestrator_site.base.intervals import DeliveryIntervals

pytestmark = pytest.mark.stateless

START = datetime(2030, 1, 1, tzinfo=UTC)
LIMIT = 8
NO_ANSWER = None  # connection error or time-out
FAILURES = [NO_ANSWER, 500, 502, 503, 599]
ANSWERS = [200, 204, 299, 301, 308, 400, 401, 404, 408, 410, 415, 422, 499]
PAUSES = [30, 60, 120, 240, 480, 600, 600, 600]
INTERVALS = DeliveryIntervals()
LEASE = INTERVALS.lease
LATENCIES = st.sampled_from([0.001, 1.0, 1.001, 14.0])


def outcome(status: int | None, retry_after: float = 0.0, seconds: float = 0.001) -> Outcome:
    return Outcome(time=START, latency_ms=round(seconds * 1000), status=status, retry_after=retry_after)


def state(destination: Destination) -> dict[str, Any]:
    return {field.name: getattr(destination, field.name) for field in Destination._meta.concrete_fields}


class Host:
    """A destination, with a clock that the test moves."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.row = Destination(origin="https://hook.example:443")
        self.now = START
        self.limit = limit

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def answer(self, *statuses: int | None, token: UUID | None = None, retry_after: float = 0.0, seconds: float = 0.001) -> None:
        """Record an outcome for each status; None stands for no answer."""
        for status in statuses:
            result = outcome(status, retry_after, seconds)
            destination_breaker.record(self.row, self.now, token or uuid.uuid4(), result, self.limit, INTERVALS)

    def free_slots(self, in_flight: int = 0) -> int:
        return destination_breaker.free_slots(self.row, self.now, in_flight, self.limit)

    def start(self, token: UUID) -> bool:
        """Start a delivery; return whether it is a probe."""
        return destination_breaker.start_delivery(self.row, self.now, token, INTERVALS)

    def start_probe(self) -> UUID:
        """Start a delivery in the only free slot, which makes it the probe; return its token."""
        token = uuid.uuid4()
        assert self.free_slots() == 1
        assert self.start(token)
        return token

    def blocked_for(self) -> float:
        """Seconds until something may be sent again."""
        ends = [end for end in (self.row.open_until, self.row.throttled_until) if end]
        return max([0.0, *((end - self.now).total_seconds() for end in ends)])


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def open_host(host: Host) -> Host:
    """A host whose breaker has just opened."""
    host.answer(*[500] * 5)
    return host


# -- the breaker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", FAILURES)
def test_five_failures_in_a_row_open_the_breaker_for_30_seconds(host: Host, status: int | None) -> None:
    # Given four failures, I expect one more delivery to be allowed
    host.answer(*[status] * 4)
    assert host.free_slots() == 1

    # and after the fifth none, for 30 seconds
    host.answer(status)
    assert host.free_slots() == 0
    host.wait(29.999)
    assert host.free_slots() == 0
    host.wait(0.001)
    assert host.free_slots() == 1


@pytest.mark.parametrize("status", [*ANSWERS, 429])
def test_any_other_answer_resets_the_count_of_failures(host: Host, status: int) -> None:
    host.answer(*[500] * 4, status, *[NO_ANSWER] * 4)
    host.wait(60)
    assert not host.start(uuid.uuid4()), "a closed breaker has no probe"
    assert host.free_slots() == 1


@pytest.mark.parametrize("status", ANSWERS)
def test_answers_that_are_not_failures_never_open_the_breaker(host: Host, status: int) -> None:
    host.answer(*[status] * 100)
    assert host.free_slots() == LIMIT


def test_each_failed_probe_doubles_the_pause_up_to_ten_minutes(open_host: Host) -> None:
    for number, seconds in enumerate(PAUSES):
        assert open_host.blocked_for() == seconds
        open_host.wait(seconds)
        open_host.answer(FAILURES[number % len(FAILURES)], token=open_host.start_probe())


@pytest.mark.parametrize("status", [*ANSWERS, 429])
def test_an_answered_probe_closes_the_breaker_and_resets_the_pauses(open_host: Host, status: int) -> None:
    # Given a breaker that has opened twice
    open_host.wait(30)
    open_host.answer(500, token=open_host.start_probe())

    # When the next probe is answered
    open_host.wait(60)
    open_host.answer(status, token=open_host.start_probe())

    # I expect no more probes, and five failures to open the breaker for 30 seconds again
    open_host.wait(600)
    assert not open_host.start(uuid.uuid4())
    open_host.answer(*[500] * 4)
    assert open_host.free_slots() == 1
    open_host.answer(500)
    assert open_host.blocked_for() == 30


def test_a_closed_breaker_forgets_its_probe(open_host: Host) -> None:
    # Given a probe in flight
    open_host.wait(30)
    open_host.start_probe()

    # When another delivery, from before the breaker opened, is answered
    open_host.answer(200)

    # I expect no trace of the probe: until `probe_until` the relay would not wake the streams that wait
    assert (open_host.row.probe_token, open_host.row.probe_until) == (None, None)


def test_there_is_one_probe_until_its_lease_expires(open_host: Host) -> None:
    # Given a probe of which nothing is heard
    open_host.wait(30)
    open_host.start_probe()

    # Until its lease has expired, I expect no other
    open_host.wait(LEASE - 0.001)
    assert open_host.free_slots() == 0

    # and then one
    open_host.wait(0.001)
    second = open_host.start_probe()
    assert open_host.free_slots() == 0
    open_host.answer(500, token=second)
    assert open_host.blocked_for() == 60


def test_a_failed_probe_whose_lease_has_expired_changes_nothing(open_host: Host) -> None:
    # Given a probe whose lease has expired, and another in its place
    open_host.wait(30)
    late = open_host.start_probe()
    open_host.wait(LEASE)
    second = open_host.start_probe()

    # When the late one fails, I expect the other still to be the probe
    open_host.answer(NO_ANSWER, token=late)
    assert open_host.free_slots() == 0
    open_host.answer(NO_ANSWER, token=second)
    assert open_host.blocked_for() == 60


@pytest.mark.parametrize("late", [1, 2, 50])
def test_failures_of_deliveries_from_before_it_opened_are_ignored(open_host: Host, late: int) -> None:
    open_host.wait(10)
    open_host.answer(*[500] * late)
    assert open_host.blocked_for() == 20

    # also while a probe is in flight
    open_host.wait(20)
    probe = open_host.start_probe()
    open_host.answer(*[NO_ANSWER] * late)
    open_host.answer(500, token=probe)
    assert open_host.blocked_for() == 60


def test_an_answered_delivery_from_before_it_opened_closes_it(open_host: Host) -> None:
    open_host.answer(200)
    assert open_host.free_slots() == 2


def test_a_paused_host_is_sent_nothing(host: Host) -> None:
    host.answer(200, 200, 200)
    host.row.paused = True
    assert host.free_slots() == 0
    assert destination_breaker.is_blocked(host.row, host.now)


# -- the window --------------------------------------------------------------------------------------


def test_the_window_doubles_with_each_answer_until_a_failure(host: Host) -> None:
    slots = [host.free_slots()]
    for status in (200, 404, 201, 200, 500, 200):
        host.answer(status)
        slots.append(host.free_slots())
    assert slots == [1, 2, 4, 8, 8, 1, 2]


@given(limit=st.integers(1, 64), answers=st.lists(st.sampled_from(FAILURES + ANSWERS)), in_flight=st.integers(0, 70))
def test_there_are_never_more_slots_than_configured(limit: int, answers: list[int | None], in_flight: int) -> None:
    host = Host(limit)
    host.answer(*answers, 200)
    assert 0 <= host.free_slots(in_flight) <= max(0, limit - in_flight)


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 64])
def test_a_host_with_good_answers_is_fast_whatever_the_limit(limit: int) -> None:
    host = Host(limit)
    assert not destination_breaker.is_fast(host.row)
    host.answer(200)
    assert destination_breaker.is_fast(host.row)
    host.answer(*[200] * 10)
    assert host.free_slots() == limit
    host.answer(500)
    assert not destination_breaker.is_fast(host.row)


# -- slowness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 500, NO_ANSWER])
@pytest.mark.parametrize("seconds", [1.1, 14.0])
def test_a_host_with_slow_answers_is_not_fast(host: Host, status: int | None, seconds: float) -> None:
    # Given a host whose answers are all slow, I expect it not to be fast, however many there are
    host.answer(*[status] * 10, seconds=seconds)
    assert not destination_breaker.is_fast(host.row)

    # nor a fast one after one slow answer
    fast = Host()
    fast.answer(*[200] * 10)
    fast.answer(status, seconds=seconds)
    assert not destination_breaker.is_fast(fast.row)


@pytest.mark.parametrize(("seconds", "slots"), [(1.0, 8), (1.1, 4), (2.5, 2), (4.0, 2), (8.0, 1), (14.0, 1)])
def test_the_slower_a_host_the_fewer_slots_it_has(host: Host, seconds: float, slots: int) -> None:
    host.answer(*[200] * 10, seconds=seconds)
    assert host.free_slots() == slots


@pytest.mark.parametrize(("seconds", "quick"), [([1.1], 2), ([14.0], 4), ([14.0] * 100, 4), ([14.0, 1.1], 4)])
def test_quick_answers_make_a_slow_host_fast_again(host: Host, seconds: list[float], quick: int) -> None:
    # Given a host that has been slow
    host.answer(200)
    for latency in seconds:
        host.answer(200, seconds=latency)

    # I expect the slower it was the more quick answers to be needed
    host.answer(*[200] * (quick - 1))
    assert not destination_breaker.is_fast(host.row)
    host.answer(200)
    assert destination_breaker.is_fast(host.row)


def test_an_answer_after_one_second_is_not_slow(host: Host) -> None:
    host.answer(200, seconds=1.0)
    assert destination_breaker.is_fast(host.row)


# -- the throttle ------------------------------------------------------------------------------------


def test_429s_in_a_row_throttle_by_the_retry_schedule(host: Host) -> None:
    # Given a host at full window that answers 429 again and again
    host.answer(*[200] * 4)
    for seconds in (1, 5, 30, 120, 600, 600, 600):
        host.answer(429)

        # I expect longer and longer pauses, jitter included
        assert seconds <= host.blocked_for() <= min(seconds * 1.2, 600)
        assert host.free_slots() == 0
        host.wait(host.blocked_for())
        assert host.free_slots() == 1

    # and short ones again once it has accepted something
    host.answer(200)
    assert host.free_slots() == 2
    host.answer(429)
    assert host.blocked_for() <= 1.2


@pytest.mark.parametrize(("asked", "seconds"), [(7, 7), (599, 599), (600, 600), (3600, 600), (86400, 600)])
def test_retry_after_is_honored_up_to_ten_minutes(host: Host, asked: float, seconds: float) -> None:
    host.answer(429, retry_after=asked)
    assert host.blocked_for() == seconds


def test_429s_to_concurrent_deliveries_count_once(host: Host) -> None:
    # Given eight deliveries in flight that are all answered 429
    host.answer(*[429] * 8)
    assert host.blocked_for() <= 1.2

    # When the next delivery is answered 429 as well, I expect the second step of the schedule
    host.wait(1.2)
    host.answer(429)
    assert 5 <= host.blocked_for() <= 6


def test_a_throttle_is_never_shortened(host: Host) -> None:
    host.answer(429, retry_after=300)
    host.wait(1)
    for status in (429, 200, 404, 500, NO_ANSWER):
        host.answer(status, retry_after=1)
        assert host.blocked_for() >= 299


@pytest.mark.parametrize("status", [503, 500])
def test_retry_after_of_a_failure_does_not_throttle_the_host(host: Host, status: int) -> None:
    host.answer(status, retry_after=300)
    assert host.free_slots() == 1


# -- all of it ---------------------------------------------------------------------------------------


@given(
    history=st.lists(st.tuples(st.sampled_from([*FAILURES, *ANSWERS, 429]), LATENCIES)),
    status=st.sampled_from([*FAILURES, *ANSWERS, 429]),
    seconds=LATENCIES,
    limit=st.sampled_from([1, 2, 8]),
)
def test_is_unchanged_by_is_only_true_if_record_changes_nothing(
    history: list[tuple[int | None, float]], status: int | None, seconds: float, limit: int
) -> None:
    host = Host(limit)
    for earlier, latency in history:
        host.answer(earlier, seconds=latency)
    before = state(host.row)
    if destination_breaker.is_unchanged_by(host.row, outcome(status, seconds=seconds), limit, INTERVALS):
        host.answer(status, seconds=seconds)
        assert state(host.row) == before


class AnyHistory(RuleBasedStateMachine):
    """Deliveries that start, end and vanish at any time, against the rules of docs/callbacks.md."""

    in_flight = Bundle("in_flight")

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.failures = 0  # in a row
        self.failed_probes: int | None = None  # since the breaker opened; None: it is closed
        self.opened_at = START
        self.probe: tuple[UUID, datetime] | None = None  # and when it started

    def is_half_open(self) -> bool:
        pause = timedelta(seconds=PAUSES[min(self.failed_probes or 0, len(PAUSES) - 1)])
        return self.failed_probes is not None and self.host.now >= self.opened_at + pause

    def has_probe(self) -> bool:
        return self.probe is not None and self.host.now < self.probe[1] + timedelta(seconds=LEASE)

    @rule(seconds=st.sampled_from([0.5, 15.0, 29.0, 30.0, LEASE - 1, LEASE, 300.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.host.wait(seconds)

    @rule(target=in_flight)
    def start_delivery(self) -> UUID:
        token = uuid.uuid4()
        if self.host.free_slots():
            assert self.host.start(token) == (self.failed_probes is not None)
            if self.failed_probes is not None:
                self.probe = (token, self.host.now)
        return token

    @rule(token=consumes(in_flight), status=st.sampled_from(FAILURES))
    def fail_delivery(self, token: UUID, status: int | None) -> None:
        self.host.answer(status, token=token)
        if self.failed_probes is None:
            self.failures += 1
            if self.failures == 5:
                self.failed_probes, self.opened_at, self.probe = 0, self.host.now, None
        elif self.probe is not None and self.probe[0] == token:
            self.failed_probes, self.opened_at, self.probe = self.failed_probes + 1, self.host.now, None

    @rule(token=consumes(in_flight), status=st.sampled_from(ANSWERS))
    def answer_delivery(self, token: UUID, status: int) -> None:
        self.host.answer(status, token=token)
        self.failures, self.failed_probes, self.probe = 0, None, None

    @rule(token=consumes(in_flight))
    def kill_process_of_delivery(self, token: UUID) -> None:
        """Nothing is ever recorded for it."""

    @invariant()
    def slots_are_as_the_rules_say(self) -> None:
        if self.failed_probes is None:
            assert 1 <= self.host.free_slots() <= LIMIT
        else:
            assert self.host.free_slots() == (1 if self.is_half_open() and not self.has_probe() else 0)


test_any_history = AnyHistory.TestCase
