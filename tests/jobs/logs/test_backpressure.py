"""A callback that takes its events slowly or not at all: the log of a running job is read no faster, and no line gets lost
without being counted."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from callbacks.models import Event
from jobs import events, lifecycle, services
from jobs.engine.docker import DockerEngine
from jobs.engine.protocol import Engine, Frame, Observation
from jobs.errors import Interrupted
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.logs import log_follower, log_writer
from jobs.logs.log_writer import Reader
from jobs.models import Job, LogChunk
from jobs.running.claimed_container import INSTANCE_LABEL
from jobs.spec import CallbackSpec, OutputSpec
from jobs.states import OutputType, Reason, State
from jobs.worker.nodes import instance_name
from jobs.worker.supervisor import Supervisor
from tests.fake_engine import FakeEngine
from tests.helpers.engines import tar_of
from tests.helpers.factories import STARTED_AT, claimed, make_job
from tests.helpers.waiting import wait_for
from tests.jobs.running.test_runner import Workers, completed, running, told

pytestmark = pytest.mark.django_db(transaction=True)

BACKLOG: Final = 5  # in place of `logstore.BACKLOG`
LINES_PER_EVENT: Final = 2  # of those that `numbered` makes
EVENTS_PER_BATCH: Final = 3
MOST: Final = BACKLOG - 1 + EVENTS_PER_BATCH  # undelivered: one less than the bound, and what is committed at once


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small events and a small bound, so that few lines are many."""
    monkeypatch.setattr("jobs.logs.log_writer.BACKLOG", BACKLOG)
    monkeypatch.setattr("jobs.log_lines.ENCODED_LIMIT", LINES_PER_EVENT * len('"0001", '))
    monkeypatch.setattr("jobs.log_lines.BATCH_LIMIT", EVENTS_PER_BATCH * LINES_PER_EVENT * len('"0001", '))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervisors look around, and readers look at a callback, sooner than they need to."""
    monkeypatch.setattr("jobs.worker.supervisor._TICK_SECONDS", 0.1)
    monkeypatch.setattr("jobs.logs.log_follower._SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr("jobs.logs.log_follower._LONGEST_PAUSE", 0.05)


def numbered(first: int, last: int) -> list[str]:
    return [f"{number:04}" for number in range(first, last + 1)]


def stored() -> list[str]:
    return [text for chunk in LogChunk.objects.all() for _, _, text in chunk.lines]


def undelivered() -> int:
    return Event.objects.filter(state=Event.State.PENDING).count()


def deliver(most: int | None = None) -> int:
    """The callback takes so many events (None: all), the oldest first; how many it had to take."""
    pending = Event.objects.filter(state=Event.State.PENDING).order_by("sequence")
    return Event.objects.filter(pk__in=list(pending.values_list("pk", flat=True)[:most])).update(state=Event.State.DELIVERED)


def told_lines() -> tuple[list[str], int]:
    """The lines that the events tell, with an empty one in place of each that they count as dropped; how many these are."""
    lines, all_dropped = [], 0
    for event in Event.objects.order_by("sequence"):
        data = json.loads(bytes(event.body))["data"]
        dropped = data.get("droppedLines", 0)
        lines += [""] * dropped + data.get("lines", [])
        all_dropped += dropped
    return lines, all_dropped


def assert_told(printed: Sequence[str]) -> int:
    """Each line was told in its place or counted there as dropped; how many were dropped."""
    lines, dropped = told_lines()
    assert len(lines) == len(printed)
    assert all(one in ("", other) for one, other in zip(lines, printed, strict=True))
    return dropped


# -- reading and storing, with an engine that does as it is told ---------------------------------------------


class Killed(BaseException):
    """No handler of the product catches it: as if the process were gone."""


class Stage:
    """An engine whose process has printed all that it will, and what happens while its log is read.

    `waits`: at each wait of the reader, one after the other; then the process ends. `reads`: at the reading of so many frames.
    """

    def __init__(self, printed: Sequence[str], waits: Sequence[Callable[[], object]] = ()) -> None:
        self.frames = [Frame("stdout", f"2026-01-01T00:00:00.{n:09}Z", f"{text}\n".encode()) for n, text in enumerate(printed)]
        self.reads: dict[int, Callable[[], object]] = {}
        self.read = 0
        self.opened = 0
        self.timeouts: list[float | None] = []
        self.connections: list[object] = []  # to the database, held by who waits
        self.most_undelivered = 0
        self.ended = False
        self._waits = iter(waits)

    @contextmanager
    def logs(self, _name: str, *, skip: int, **_: Any) -> Iterator[Iterator[Frame]]:
        self.opened += 1
        yield self._frames(skip)

    def _frames(self, skip: int) -> Iterator[Frame]:
        for frame in self.frames[skip:]:
            self.read += 1
            self.reads.get(self.read, bool)()
            yield frame

    def wait(self, _name: str, interrupt: Interrupt, timeout: float | None = None) -> None:
        interrupt.check()
        self.timeouts.append(timeout)
        self.connections.append(connection.connection)
        self.most_undelivered = max(self.most_undelivered, undelivered())
        next(self._waits, self.end)()
        interrupt.check()

    def end(self) -> None:
        self.ended = True

    def inspect(self, name: str) -> Observation:
        return Observation(name, "ended" if self.ended else "running", datetime.now(UTC))


def reader(claim: Claim) -> Reader:
    return Reader(claim, Job.objects.get(), 10**9, 10**9)


def follow(stage: Stage, claim: Claim, interrupt: Interrupt | None = None) -> None:
    log_follower.follow(stage, "name", reader(claim), interrupt or Interrupt())  # type: ignore[arg-type]


def conclude(stage: Stage, claim: Claim) -> None:
    log_follower.read_rest(stage, "name", reader(claim), Interrupt())  # type: ignore[arg-type]
    lifecycle.exited(claim, 0)


def decide(claim: Claim) -> None:
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)


def started(**values: Any) -> Claim:
    claim = claimed(make_job(**values))
    lifecycle.started(claim, STARTED_AT)
    return claim


def nothing() -> None:
    """Time goes by."""


def test_a_log_is_read_on_only_when_its_events_are_delivered(small: None) -> None:
    # Given a process that has printed much, and a callback that takes nothing at first
    seen: list[tuple[int, int]] = []
    printed = numbered(1, 100)

    def look() -> None:
        seen.append((stage.read, undelivered()))

    stage = Stage(printed, [look, look, look, deliver, look])
    claim = started()

    # When it is read while the process runs
    follow(stage, claim)

    # I expect it to be read as far as the bound, to stay there, and to go on once the callback has caught up
    assert len({*seen[:3]}) == 1
    assert seen[3][0] > seen[0][0]
    assert all(BACKLOG <= waiting <= MOST for _, waiting in seen)
    assert stage.read < len(printed)
    # And the log to have been opened once
    assert stage.opened == 1
    # And each line that was read to have been stored and told
    assert stored() == printed[: stage.read]
    assert assert_told(stored()) == 0


def test_a_callback_is_looked_at_less_and_less_often(small: None) -> None:
    stage = Stage(numbered(1, 100), [*[nothing] * 7, deliver, nothing])
    follow(stage, started())

    # I expect the looks at one that takes nothing to become rare, and to be frequent again once it took something
    assert stage.timeouts[:10] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 0.25, 0.5]


def test_nobody_who_waits_holds_a_connection(small: None) -> None:
    stage = Stage(numbered(1, 100), [nothing] * 3)
    follow(stage, started())

    assert stage.connections == [None] * 4


def test_a_quick_callback_costs_one_look_for_each_commit(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a callback that takes every event at once
    looks = 0
    look = events.undelivered

    def counted(*args: Any) -> int:
        nonlocal looks
        looks += 1
        deliver()
        return look(*args)

    monkeypatch.setattr(events, "undelivered", counted)

    # When a new job's log is read
    stage = Stage(numbered(1, 100))
    follow(stage, started())

    # I expect nobody to have waited for it, and it to have been looked at once for each commit
    assert stage.read == 100
    assert looks == LogChunk.objects.count()


def test_a_new_owner_waits_before_it_opens_the_log(small: None) -> None:
    # Given a job whose owner stopped in front of a callback that takes nothing
    claim = started()
    follow(Stage(numbered(1, 100)), claim)

    # When another one takes it up
    opened: list[int] = []
    stage = Stage(numbered(1, 100), [lambda: opened.append(stage.opened)] * 2)
    follow(stage, claim)

    # I expect it to wait, and to have read nothing when the process ends
    assert opened == [0, 0]
    assert stage.read == 0


def test_who_waits_for_a_callback_can_be_interrupted(small: None) -> None:
    interrupt = Interrupt()
    stage = Stage(numbered(1, 100), [nothing, interrupt.wake])

    with pytest.raises(Interrupted):
        follow(stage, started(), interrupt)

    assert undelivered() <= MOST


@pytest.mark.parametrize("taken", [(), ("orchestrator.job.start",)], ids=["no callback", "a callback that takes no logs"])
def test_a_job_without_a_callback_for_its_log_waits_for_none(
    small: None, monkeypatch: pytest.MonkeyPatch, taken: tuple[str, ...]
) -> None:
    # Given one whose callback is behind with something else
    monkeypatch.setattr("jobs.logs.log_writer.BACKLOG", 1)
    claim = started(callback=CallbackSpec(url="http://127.0.0.1:9/", events=taken) if taken else None)
    assert undelivered() == len(taken)
    stage = Stage(numbered(1, 100))

    # When it is read, by one owner and by the next
    follow(stage, claim)
    follow(stage, claim)

    # I expect all of it to have been stored while the process ran, and a wait at the end of the log only
    assert stored() == numbered(1, 100)
    assert stage.timeouts == [log_follower._LOOK_SECONDS] * 2
    decide(claim)
    conclude(stage, claim)
    assert told_lines() == ([], 0)


def test_the_rest_of_a_log_is_stored_and_what_has_no_room_is_counted_in_the_exit(small: None) -> None:
    # Given a process that ended in front of a callback that takes nothing
    printed = numbered(1, 100)
    stage, claim = Stage(printed), started()
    follow(stage, claim)
    told_before = len(told_lines()[0])
    decide(claim)

    # When its end is handled
    waits = len(stage.timeouts)
    conclude(stage, claim)

    # I expect nobody to have waited, all lines to be stored, and those that were not told to be counted
    assert len(stage.timeouts) == waits
    assert stored() == printed
    assert assert_told(printed) == 100 - told_before
    assert json.loads(bytes(Event.objects.get(type=events.EXIT).body))["data"]["droppedLines"] == 100 - told_before
    assert undelivered() <= MOST + 1


def test_dropped_lines_are_told_by_the_next_log_event_that_has_room(small: None) -> None:
    # Given a process that ended in front of a callback that takes nothing
    printed = numbered(1, 100)
    stage, claim = Stage(printed), started()
    follow(stage, claim)
    decide(claim)

    # When the callback catches up while the rest is read
    stage.reads[stage.read + 50] = deliver
    conclude(stage, claim)

    # I expect the first log event then to say how many lines are missing before its own
    counted = [json.loads(bytes(event.body))["data"].get("droppedLines", 0) for event in Event.objects.order_by("sequence")]
    assert [bool(count) for count in counted].count(True) == 2
    assert counted[-1] > 0
    assert assert_told(printed) == sum(counted)


def test_a_log_that_is_full_is_counted_to_its_end_all_the_same(small: None) -> None:
    # Given a stored log that is full, and a callback that takes nothing
    printed = numbered(1, 100)
    claim = started()
    decide(claim)

    # When the rest is read
    small_reader = Reader(claim, Job.objects.get(), 50, 10**9)
    log_follower.read_rest(Stage(printed), "name", small_reader, Interrupt())  # type: ignore[arg-type]
    lifecycle.exited(claim, 0)

    # I expect the marker, and every line to be told or counted
    assert (stored()[:10], len(stored())) == (numbered(1, 10), 11)
    assert assert_told(printed) > 0


@given(st.data())
@hypothesis.settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_callback_takes_and_whoever_dies_every_line_is_told_or_counted_once(
    small: None, data: st.DataObject
) -> None:
    # Given so many lines, a callback that takes so many events at a time, and owners that die while they wait, while
    # they read, and while they commit
    printed = numbered(1, data.draw(st.integers(0, 120), "lines"))
    few = st.integers(0, 2 * BACKLOG)
    takes = [lambda n=n: deliver(n) for n in data.draw(st.lists(few, max_size=8), "events taken at each wait")]
    deaths = data.draw(st.sets(st.integers(1, 40), max_size=4), "commits undone")

    def die() -> None:
        raise Killed

    stage = Stage(printed, [take if data.draw(st.booleans(), "lives") else die for take in takes])
    stage.reads |= {n: lambda: deliver(1) for n in data.draw(st.sets(st.integers(1, 200)), "events taken while reading")}
    stage.reads |= dict.fromkeys(data.draw(st.sets(st.integers(1, 200), max_size=5), "deaths while reading"), die)
    commits = 0
    tell = log_writer._tell

    def tell_and_die(*args: Any) -> bool:
        nonlocal commits
        commits += 1
        behind = tell(*args)
        if commits in deaths:
            raise Killed
        return behind

    with transaction.atomic(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_writer, "_tell", tell_and_die)
        claim = started()

        # When it is read until the process has ended, and then to its end
        while not stage.ended:
            with suppress(Killed):
                follow(stage, claim)
        decide(claim)
        while Job.objects.get().exited_at is None:
            with suppress(Killed):
                conclude(stage, claim)

        # I expect all to be stored, each line to be told or counted in its place, and the bound to have held
        assert stored() == printed
        assert_told(printed)
        assert stage.most_undelivered <= MOST
        assert undelivered() <= MOST + 1
        transaction.set_rollback(True)


# -- whole jobs ------------------------------------------------------------------------------------------------

PRINTED: Final = numbered(1, 500)
PRINT: Final = "seq -f %04g 500"
UNTIL_GO: Final = "while [ ! -e go ]; do sleep 0.02; done"


@pytest.fixture
def workers(engine: FakeEngine, tmp_path: Path, small: None, quick: None) -> Iterator[Workers]:
    workers = Workers(engine, tmp_path)
    yield workers
    workers.stop()


class Looks:
    """How often a reader has looked at the job's callback and found it behind, without having read since."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._in_vain = 0
        self._look, self._tell = Reader.callback_is_behind, log_writer._tell
        monkeypatch.setattr(Reader, "callback_is_behind", lambda reader: self._counted(self._look(reader)))
        monkeypatch.setattr(log_writer, "_tell", self._told)

    def _counted(self, behind: bool) -> bool:
        self._in_vain += behind
        return behind

    def _told(self, *args: Any) -> bool:
        self._in_vain = 0
        return self._tell(*args)

    def wait_for_stall(self) -> None:
        """Wait until a reader has come back to a callback that is behind, and found it as it was."""
        self._in_vain = 0
        wait_for(lambda: self._in_vain >= 3, 20, "the reader to be stalled")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def stalled(workers: Workers, looks: Looks, **values: Any) -> tuple[Job, Supervisor]:
    """A job that runs on in front of a callback that has taken nothing of it, and who drives it."""
    job, supervisor = make_job(**values), workers.another()
    workers.run(supervisor)
    running(job)
    looks.wait_for_stall()
    return job, supervisor


def go(engine: Engine, labels: dict[str, str]) -> None:
    """Let the process end that waits for it."""
    (seen,) = engine.list(labels)
    engine.put(seen.name, "/workspace", [tar_of("go", b"")])


def test_a_running_job_is_read_as_its_callback_takes_it(engine: FakeEngine, workers: Workers, looks: Looks) -> None:
    # Given a job that has printed much more than its callback has taken
    job, _ = stalled(workers, looks, command=f"{PRINT}; {UNTIL_GO}; echo last")
    assert BACKLOG <= undelivered() <= MOST
    assert stored() == PRINTED[: len(stored())]
    assert len(stored()) <= MOST * LINES_PER_EVENT

    # When the callback takes what there is, time and again
    wait_for(lambda: not deliver() and len(stored()) == len(PRINTED), 30, "all lines to be read")
    go(engine, {})

    # I expect every line to have been told, once
    assert completed(job).status == State.COMPLETED
    assert stored() == [*PRINTED, "last"]
    assert assert_told([*PRINTED, "last"]) == 0


def test_the_end_of_a_process_waits_for_no_callback(engine: FakeEngine, workers: Workers, looks: Looks) -> None:
    # Given a job with an output whose callback takes nothing
    out = OutputSpec(id="out", type=OutputType.EVENT, path="out")
    job, _ = stalled(workers, looks, command=f"echo made > out; {PRINT}; {UNTIL_GO}; echo last; exit 3", outputs=(out,))

    # When its process ends
    go(engine, {})

    # I expect all of its story, with a log that is whole where it is stored and counted where it is not told
    job = completed(job)
    assert (job.reason, job.exit_code, job.outputs.get().status) == (Reason.EXIT_CODE, 3, "success")
    assert stored() == [*PRINTED, "last"]
    assert assert_told([*PRINTED, "last"]) > 0
    assert undelivered() <= MOST + 3
    story = told(job)
    assert (story[0], {*story[1:-3]}, story[-3:]) == ("start", {"log"}, ["exit", "output", "complete"])


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "overdue"])
def test_a_stalled_job_is_decided_as_any_other(workers: Workers, looks: Looks, cancelled: bool) -> None:
    # Given a job whose callback takes nothing
    job, supervisor = stalled(workers, looks, command=f"{PRINT}; exec sleep 60")

    # When it is cancelled, or its time is up
    if cancelled:
        services.cancel(job.id)
    else:
        (run,) = supervisor._snapshot()
        run.deadline = time.monotonic()

    # I expect it to be ended by that, and its log to be whole
    job = completed(job)
    assert (job.reason, job.exit_code) == (Reason.CANCELLED if cancelled else Reason.TIMEOUT, 143)
    assert stored() == PRINTED
    assert assert_told(PRINTED) > 0
    assert told(job)[-2:] == ["exit", "complete"]


def test_a_stalled_job_is_handed_over_and_stays_stalled(engine: FakeEngine, workers: Workers, looks: Looks) -> None:
    # Given a job whose callback takes nothing
    job, first = stalled(workers, looks, command=f"{PRINT}; {UNTIL_GO}; echo last")
    before = stored()

    # When its worker stops and another one goes on
    first.stop()
    assert first._snapshot() == []
    workers.run(workers.another())
    looks.wait_for_stall()

    # I expect nothing more to have been read
    assert Job.objects.get().claims == 2
    assert stored() == before

    # And all to be told, once, when the callback takes it
    wait_for(lambda: not deliver() and len(stored()) == len(PRINTED), 30, "all lines to be read")
    go(engine, {})
    completed(job)
    assert assert_told([*PRINTED, "last"]) == 0


@pytest.mark.parametrize("taken", [(), ("orchestrator.job.start",)], ids=["no callback", "a callback that takes no logs"])
def test_a_job_without_a_callback_for_its_log_is_read_while_it_runs(
    engine: FakeEngine, workers: Workers, taken: tuple[str, ...]
) -> None:
    callback = CallbackSpec(url="http://127.0.0.1:9/", events=taken) if taken else None
    job = make_job(command=f"{PRINT}; {UNTIL_GO}", callback=callback)
    workers.run(workers.another())

    wait_for(lambda: stored() == PRINTED, 20, "all lines to be stored")
    assert Job.objects.get().status == State.RUNNING

    go(engine, {})
    assert completed(job).status == State.COMPLETED


@pytest.mark.engine
def test_docker_keeps_what_a_callback_has_no_room_for(
    docker_host: str, tmp_path: Path, quick: None, looks: Looks, request: pytest.FixtureRequest
) -> None:
    # Given a job that prints 100,000 lines and runs on, in front of a callback that takes nothing
    engine = DockerEngine(docker_host)
    workers, labels = Workers(engine, tmp_path), {INSTANCE_LABEL: instance_name()}  # type: ignore[arg-type]
    request.addfinalizer(partial(remove_all, engine, labels))
    request.addfinalizer(workers.stop)
    padding = "x" * 200
    command = f"seq 100000 | sed s/$/{padding}/; touch printed; {UNTIL_GO}; echo last"
    job, _ = stalled(workers, looks, command=command, network="none")

    # I expect the process to get on, and its log to be read as far as the bound
    (seen,) = engine.list(labels)
    wait_for(lambda: engine.stat(seen.name, "/workspace/printed"), 30, "all to be printed")
    looks.wait_for_stall()
    assert log_writer.BACKLOG <= undelivered() < log_writer.BACKLOG + 20
    assert told_lines() == (stored(), 0)

    # When the process ends
    go(engine, labels)

    # I expect each line to be told or counted in its place, and the log to be stored as far as LOG_LIMIT
    assert completed(job).status == State.COMPLETED
    printed = [*(f"{number}{padding}" for number in range(1, 100_001)), "last"]
    assert assert_told(printed) > 0
    assert undelivered() < log_writer.BACKLOG + 20
    *kept, marker = stored()
    assert kept == printed[: len(kept)]
    assert "reached the limit" in marker
    assert told(job)[-2:] == ["exit", "complete"]


def remove_all(engine: DockerEngine, labels: dict[str, str]) -> None:
    for seen in engine.list(labels):
        engine.remove(seen.name, force=True)
    for network_id in engine.list_networks(labels):
        engine.remove_network(network_id)
