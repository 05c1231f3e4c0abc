"""Callbacks that accept events slowly or not at all: a running job's log is read no faster, and no line is lost uncounted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import hypothesis
import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from callbacks.models import Destination, Event, Owner, Subscription
from jobs import events, lifecycle
from jobs.engine.protocol import EngineTraits, Frame, Frames, Observation
from jobs.errors import Interrupted
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.logs.backpressure import Backlog
from jobs.logs.log_writer import LogWriter
from jobs.models import Job, LogChunk
from jobs.spec import CallbackSpec
from orchestrator_site.base.intervals import LogIntervals
from tests.helpers.kills import Killed
from tests.helpers.log_frames import alone
from tests.jobs.logs.log_steps import (
    INTERVALS,
    assert_reported,
    decide,
    dropped_lines_in_exit,
    log_follower,
    reported_lines,
    started,
    stored_lines,
)

pytestmark = pytest.mark.django_db(transaction=True)

BACKLOG: Final = 5  # in place of `MAX_UNDELIVERED`
LINES_PER_EVENT: Final = 2  # of those that `numbered` makes
EVENTS_PER_BATCH: Final = 3
MAX_PENDING: Final = BACKLOG - 1 + EVENTS_PER_BATCH  # a batch may start just below the limit


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make events and backlogs so small that few lines fill them."""
    monkeypatch.setattr("jobs.logs.backpressure.MAX_UNDELIVERED", BACKLOG)
    monkeypatch.setattr("jobs.log_lines.MAX_EVENT_BYTES", LINES_PER_EVENT * len('"0001", '))
    monkeypatch.setattr("jobs.log_lines.MAX_BATCH_BYTES", EVENTS_PER_BATCH * LINES_PER_EVENT * len('"0001", '))


def numbered(first: int, last: int) -> list[str]:
    return [f"{number:04}" for number in range(first, last + 1)]


def pending_events() -> int:
    return Event.objects.filter(state=Event.State.PENDING).count()


def deliver(count: int | None = None) -> int:
    """Deliver the oldest `count` events, or all; return how many were delivered."""
    pending = Event.objects.filter(state=Event.State.PENDING).order_by("sequence")
    return Event.objects.filter(pk__in=list(pending.values_list("pk", flat=True)[:count])).update(state=Event.State.DELIVERED)


def die() -> None:
    raise Killed


def nothing() -> None:
    """Let time pass."""


class ScriptedEngine:
    """A container whose process has printed everything already, and ends after the scripted waits.

    `on_waits` are called one after the other when the follower waits; the wait after the last of them ends the process.
    `on_frames` are called when that many frames have been read.
    """

    traits = EngineTraits()

    def __init__(self, printed: Sequence[str], on_waits: Sequence[Callable[[], object]] = ()) -> None:
        self.frames = [Frame("stdout", f"2026-01-01T00:00:00.{n:09}Z", f"{text}\n".encode()) for n, text in enumerate(printed)]
        self.on_frames: dict[int, Callable[[], object]] = {}
        self.frames_read = 0
        self.times_opened = 0
        self.timeouts: list[float | None] = []
        self.connections: list[object] = []  # to the database, during each wait
        self.max_pending = 0
        self.ended = False
        self._on_waits = iter(on_waits)

    @contextmanager
    def logs(self, _name: str, *, skip: int, **_: Any) -> Iterator[Iterator[Frames]]:
        self.times_opened += 1
        yield self._read(skip)

    def _read(self, skip: int) -> Iterator[Frames]:
        for frame in self.frames[skip:]:
            self.frames_read += 1
            self.on_frames.get(self.frames_read, nothing)()
            yield alone(frame)

    def wait(self, _name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        interrupt.check()
        self.timeouts.append(timeout)
        self.connections.append(connection.connection)
        self.max_pending = max(self.max_pending, pending_events())
        next(self._on_waits, self.end)()
        interrupt.check()

    def end(self) -> None:
        self.ended = True

    def inspect(self, name: str) -> Observation:
        return Observation(name, "ended" if self.ended else "running", datetime.now(UTC))


def end_log(engine: ScriptedEngine, claim: Claim) -> None:
    log_follower(engine, claim).read_rest()
    lifecycle.exited(claim, 0)


# -- while the process runs ----------------------------------------------------------------------------------


def test_a_log_is_read_on_only_when_its_events_are_delivered(small_limits: None) -> None:
    # Given a process that has printed much, and a callback that accepts nothing at first
    seen: list[tuple[int, int]] = []
    printed = numbered(1, 100)

    def look() -> None:
        seen.append((engine.frames_read, pending_events()))

    engine = ScriptedEngine(printed, [look, look, look, deliver, look])
    claim = started()

    # When
    log_follower(engine, claim).follow()

    # I expect reading to stop when the backlog is full, and to continue when the callback has caught up
    assert len({*seen[:3]}) == 1
    assert seen[3][0] > seen[0][0]
    assert all(BACKLOG <= pending <= MAX_PENDING for _, pending in seen)
    assert engine.frames_read < len(printed)
    # And the log to have been opened once
    assert engine.times_opened == 1
    # And each line that was read to be stored and published
    assert stored_lines() == printed[: engine.frames_read]
    assert assert_reported(stored_lines()) == 0


def test_the_backlog_is_checked_at_growing_intervals(small_limits: None) -> None:
    engine = ScriptedEngine(numbered(1, 100), [*[nothing] * 7, deliver, nothing])

    log_follower(engine, started()).follow()

    # I expect the interval to double up to a maximum, and to be short again after a delivery
    assert engine.timeouts[:10] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 0.25, 0.5]


def test_a_waiting_follower_holds_no_database_connection(small_limits: None) -> None:
    engine = ScriptedEngine(numbered(1, 100), [nothing] * 3)

    log_follower(engine, started()).follow()

    assert engine.connections == [None] * 4


def test_a_fast_callback_costs_one_query_per_commit(small_limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a callback that accepts every event at once
    queries = 0
    query = events.undelivered

    def counted(*args: Any) -> int:
        nonlocal queries
        queries += 1
        deliver()
        return query(*args)

    monkeypatch.setattr(events, "undelivered", counted)

    # When a new job's log is read
    engine = ScriptedEngine(numbered(1, 100))
    log_follower(engine, started()).follow()

    # I expect no wait, and one query for each commit
    assert engine.frames_read == 100
    assert queries == LogChunk.objects.count()


def test_a_new_owner_waits_before_it_opens_the_log(small_limits: None) -> None:
    # Given a job whose owner stopped when the backlog was full
    claim = started()
    log_follower(ScriptedEngine(numbered(1, 100)), claim).follow()

    # When the next owner takes over
    opened: list[int] = []
    engine = ScriptedEngine(numbered(1, 100), [lambda: opened.append(engine.times_opened)] * 2)
    log_follower(engine, claim).follow()

    # I expect it to wait, and to have read nothing by the time the process ends
    assert opened == [0, 0]
    assert engine.frames_read == 0


def test_a_wait_for_the_callback_can_be_interrupted(small_limits: None) -> None:
    interrupt = Interrupt()
    engine = ScriptedEngine(numbered(1, 100), [nothing, interrupt.wake])

    with pytest.raises(Interrupted):
        log_follower(engine, started(), interrupt).follow()

    assert pending_events() <= MAX_PENDING


@pytest.mark.parametrize("wanted", [(), ("orchestrator.job.start",)], ids=["no callback", "a callback without log events"])
def test_a_job_without_log_events_does_not_wait(
    small_limits: None, monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, ...]
) -> None:
    # Given a backlog that is full of other events
    monkeypatch.setattr("jobs.logs.backpressure.MAX_UNDELIVERED", 1)
    claim = started(callback=CallbackSpec(url="http://127.0.0.1:9/", events=wanted) if wanted else None)
    assert pending_events() == len(wanted)
    engine = ScriptedEngine(numbered(1, 100))

    # When the log is read by one owner and by the next
    log_follower(engine, claim).follow()
    log_follower(engine, claim).follow()

    # I expect all of it to be stored while the process runs, and a wait only at the end of the log
    assert stored_lines() == numbered(1, 100)
    assert engine.timeouts == [INTERVALS.exit_check] * 2
    decide(claim)
    end_log(engine, claim)
    assert reported_lines() == ([], 0)


# -- after the process has ended -----------------------------------------------------------------------------


class ScriptedSleep(Interrupt):
    """An interrupt whose `sleep` calls `on_sleep` instead."""

    def __init__(self, on_sleep: Callable[[], object]) -> None:
        super().__init__()
        self.sleeps = 0
        self.max_pending = 0
        self._on_sleep = on_sleep

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.max_pending = max(self.max_pending, pending_events())
        self._on_sleep()


def test_all_lines_reach_a_callback_that_keeps_up(small_limits: None) -> None:
    # Given a process that has ended with most of its log unread, and a callback that accepts an event now and then
    printed = numbered(1, 300)
    claim, callback = started(), ScriptedSleep(lambda: deliver(1))
    decide(claim)

    # When the rest is read
    keeps_up = LogIntervals(rest=1000.0, rest_stall=1000.0)
    log_follower(ScriptedEngine(printed), claim, callback, intervals=keeps_up).read_rest()
    lifecycle.exited(claim, 0)

    # I expect every line in an event, and a backlog that stayed within its limit
    assert assert_reported(printed) == 0
    assert callback.max_pending <= MAX_PENDING
    assert pending_events() <= MAX_PENDING + 1


def test_the_end_of_a_job_waits_once_for_a_dead_callback(small_limits: None) -> None:
    # Given a process that has ended with all of its log unread, and a callback that accepts nothing
    printed = numbered(1, 300)
    claim, callback = started(), ScriptedSleep(nothing)
    decide(claim)

    # When the rest is read
    log_follower(ScriptedEngine(printed), claim, callback, intervals=LogIntervals(rest_stall=0.3)).read_rest()
    lifecycle.exited(claim, 0)

    # I expect a wait, but only at the first full backlog; then lines to be stored and counted, and the backlog to be bounded
    assert callback.sleeps > 0
    assert callback.max_pending == pending_events() - 1 <= MAX_PENDING
    assert stored_lines() == printed
    assert dropped_lines_in_exit() == assert_reported(printed) > 0


def test_a_callback_has_limited_time_for_the_rest_however_steadily_it_accepts_events(small_limits: None) -> None:
    # Given
    printed = numbered(1, 300)
    claim, callback = started(), ScriptedSleep(lambda: deliver(1))
    decide(claim)

    # When there is no time left at all
    log_follower(ScriptedEngine(printed), claim, callback, intervals=LogIntervals(rest=0.0)).read_rest()
    lifecycle.exited(claim, 0)

    # I expect no wait
    assert callback.sleeps == 0
    assert dropped_lines_in_exit() == assert_reported(printed) > 0


def test_a_wait_for_the_rest_can_be_interrupted_and_continued(small_limits: None) -> None:
    # Given an owner that is told to stop while it waits for the callback
    printed = numbered(1, 300)
    claim, interrupt = started(), Interrupt()
    decide(claim)
    patient = LogIntervals(rest=1000.0, rest_stall=1000.0)
    engine = ScriptedEngine(printed)
    engine.on_frames[BACKLOG * LINES_PER_EVENT] = interrupt.wake
    with pytest.raises(Interrupted):
        log_follower(engine, claim, interrupt, intervals=patient).read_rest()

    # When the next one continues, and the callback accepts events again
    log_follower(ScriptedEngine(printed), claim, ScriptedSleep(deliver), intervals=patient).read_rest()
    lifecycle.exited(claim, 0)

    # I expect every line in an event, once
    assert assert_reported(printed) == 0


def test_the_rest_of_a_log_is_stored_and_dropped_lines_are_counted(small_limits: None) -> None:
    # Given a process that has ended while the backlog was full
    printed = numbered(1, 100)
    engine, claim = ScriptedEngine(printed), started()
    log_follower(engine, claim).follow()
    published_before = len(reported_lines()[0])
    decide(claim)

    # When
    waits = len(engine.timeouts)
    end_log(engine, claim)

    # I expect no wait, all lines to be stored, and those that were not published to be counted in the exit event
    assert len(engine.timeouts) == waits
    assert stored_lines() == printed
    assert assert_reported(printed) == 100 - published_before
    assert dropped_lines_in_exit() == 100 - published_before
    assert pending_events() <= MAX_PENDING + 1


def test_dropped_lines_are_reported_by_the_next_log_event(small_limits: None) -> None:
    # Given a process that has ended while the backlog was full
    printed = numbered(1, 100)
    engine, claim = ScriptedEngine(printed), started()
    log_follower(engine, claim).follow()
    decide(claim)

    # When the callback catches up while the rest is read
    engine.on_frames[engine.frames_read + 50] = deliver
    end_log(engine, claim)

    # I expect a log event to say how many lines are missing before its own, and the exit event to count those after it
    assert 0 < dropped_lines_in_exit() < assert_reported(printed)


def test_a_full_log_is_still_reported_to_its_end(small_limits: None) -> None:
    # Given
    printed = numbered(1, 100)
    claim = started()
    decide(claim)

    # When a log that exceeds LOG_LIMIT is read
    log_follower(ScriptedEngine(printed), claim, log_limit=50).read_rest()
    lifecycle.exited(claim, 0)

    # I expect the marker, and every line to be published or counted
    assert (stored_lines()[:10], len(stored_lines())) == (numbered(1, 10), 11)
    assert assert_reported(printed) > 0


# -- callbacks that get as much per second as they may -------------------------------------------------------------


def limit_destination() -> None:
    Destination.objects.update(limited_until=Now() + timedelta(minutes=1))


def limit_namespace() -> None:
    Owner.objects.create(name="namespace default", limited_until=Now() + timedelta(minutes=1))


def limit_key() -> None:
    Subscription.objects.update(client="orch_key")
    Owner.objects.create(name="key orch_key", limited_until=Now() + timedelta(minutes=1))


@pytest.mark.parametrize("limit", [limit_destination, limit_namespace, limit_key])
def test_no_line_within_log_limit_is_lost_by_a_limited_callback(small_limits: None, limit: Callable[[], None]) -> None:
    # Given a process that has ended with all of its log unread, and a callback that gets nothing because it has got much
    printed = numbered(1, 300)
    claim = started()
    limit()
    decide(claim)

    # When the rest is read, of which the first hundred lines are within LOG_LIMIT
    log_follower(ScriptedEngine(printed), claim, log_limit=100 * len("0001\n")).read_rest()
    lifecycle.exited(claim, 0)

    # I expect these in events, and others to be counted in the exit event
    lines, _ = reported_lines()
    assert lines[:100] == printed[:100]
    assert 0 < dropped_lines_in_exit() == assert_reported(printed) <= 200


def test_a_callback_that_is_limited_after_lines_were_dropped_gets_those_within_log_limit(small_limits: None) -> None:
    # Given a callback that was so far behind that lines are dropped, and then gets nothing because it has got much
    writer = LogWriter(started(), Job.objects.get(), log_limit=100 * len("0001\n"), engine_log_limit=10**9, intervals=INTERVALS)
    writer.backlog.may_drop = True
    limit_destination()

    # When more is printed
    printed = numbered(1, 300)
    for frame in ScriptedEngine(printed).frames:
        writer.write(alone(frame))
    writer.write(None)

    # I expect the lines within LOG_LIMIT, and the rest to be dropped
    lines, _ = reported_lines()
    assert lines[:100] == printed[:100]
    assert len(lines) <= 100 + EVENTS_PER_BATCH * LINES_PER_EVENT


def test_a_log_is_read_up_to_log_limit_while_its_callback_is_limited(small_limits: None) -> None:
    # Given a process that has printed much, and a callback that gets nothing because it has got much
    printed = numbered(1, 300)
    engine, claim = ScriptedEngine(printed, [nothing]), started()
    limit_destination()

    # When its log is followed, I expect reading to stop soon after LOG_LIMIT is reached: the engine may not keep the rest
    log_follower(engine, claim, log_limit=100 * len("0001\n")).follow()
    assert 100 <= engine.frames_read <= 100 + 2 * EVENTS_PER_BATCH * LINES_PER_EVENT
    assert assert_reported(printed[: engine.frames_read]) == 0


def test_a_callback_that_is_far_behind_gets_larger_events(small_limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a callback that is behind, and one that is not
    monkeypatch.setattr("jobs.logs.backpressure._MANY", BACKLOG)
    intervals = LogIntervals(batch=0.0, patient_batch=1000.0)
    writer = LogWriter(started(), Job.objects.get(), log_limit=10**9, engine_log_limit=10**9, intervals=intervals)
    frames = iter(ScriptedEngine(numbered(1, 300)).frames)
    while pending_events() < BACKLOG:
        writer.write(alone(next(frames)))
    writer.write(alone(next(frames)))
    before = pending_events()

    # When a line comes, I expect it to wait for others only while the callback is behind
    writer.write(alone(next(frames)))
    assert pending_events() == before
    deliver()
    writer.write(None)
    writer.write(alone(next(frames)))
    assert pending_events() == 2


# -- owners that die -----------------------------------------------------------------------------------------


@contextmanager
def killed_in_commits(numbers: set[int]) -> Iterator[None]:
    """Kill the owner in the middle of these commits, counted from 1."""
    commits = 0
    publish = Backlog.publish

    def publish_and_die(*args: Any) -> None:
        nonlocal commits
        commits += 1
        publish(*args)
        if commits in numbers:
            die()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backlog, "publish", publish_and_die)
        yield


def by_new_owners(step: Callable[[], object], done: Callable[[], bool]) -> None:
    """Repeat a step, which may kill its owner, until it is done."""
    while not done():
        with suppress(Killed):
            step()


DEATH_OR_DELIVERY = st.just(die) | st.integers(0, 2 * BACKLOG).map(lambda count: lambda: deliver(count))


@given(
    line_count=st.integers(0, 120),
    on_waits=st.lists(DEATH_OR_DELIVERY, max_size=8),
    on_frames=st.dictionaries(st.integers(1, 200), DEATH_OR_DELIVERY, max_size=20),
    killed_commits=st.sets(st.integers(1, 40), max_size=4),
)
@hypothesis.settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_is_reported_once_whenever_owners_die(
    small_limits: None,
    line_count: int,
    on_waits: list[Callable[[], object]],
    on_frames: dict[int, Callable[[], object]],
    killed_commits: set[int],
) -> None:
    # Given a slow callback, and owners that die while they wait, read or commit
    printed = numbered(1, line_count)
    engine = ScriptedEngine(printed, on_waits)
    engine.on_frames = on_frames
    with transaction.atomic(), killed_in_commits(killed_commits):
        claim = started()

        # When the log is read until the process has ended, and then to its end
        by_new_owners(lambda: log_follower(engine, claim).follow(), lambda: engine.ended)
        decide(claim)
        by_new_owners(lambda: end_log(engine, claim), lambda: Job.objects.get().exited_at is not None)

        # I expect all lines to be stored, each to be reported in its place, and the backlog to stay within its limit
        assert stored_lines() == printed
        assert_reported(printed)
        assert engine.max_pending <= MAX_PENDING
        assert pending_events() <= MAX_PENDING + 1
        transaction.set_rollback(True)
