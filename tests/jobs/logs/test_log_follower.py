"""A log that the engine rotates: nothing is lost as long as the first file lasts, and gaps are told of afterwards."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import hypothesis
import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from callbacks.models import Event
from jobs import lifecycle
from jobs.engine.protocol import Frame, Observation, StreamName
from jobs.errors import EngineRefused
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.logs import log_follower
from jobs.logs.log_writer import Reader
from jobs.models import Job, LogChunk
from jobs.spec import CallbackSpec
from jobs.states import State
from tests.helpers.engines import DockerBench, shell
from tests.helpers.factories import STARTED_AT, claimed, make_job

pytestmark = pytest.mark.django_db(transaction=True)

FULL_AT_ONCE: Final = 0  # an engine limit that any log has passed
NEVER_FULL: Final = 10**9


class ScriptedEngine:
    """Its log is one thing while it is followed and maybe another when it is read again."""

    def __init__(self, followed: Sequence[Frame], kept: Sequence[Frame]) -> None:
        self._followed, self._kept = followed, kept

    @contextmanager
    def logs(self, _name: str, *, skip: int, follow: bool, **_: Any) -> Iterator[Iterator[Frame]]:
        yield iter((self._followed if follow else self._kept)[skip:])

    def inspect(self, name: str) -> Observation:
        return Observation(name, "ended", datetime.now(UTC))

    def wait(self, *_: Any, **__: Any) -> None:
        """It has ended."""


def line(number: int, *, stream: StreamName = "stdout") -> Frame:
    return Frame(stream, f"2026-01-01T00:00:00.{number:09}Z", f"{number}\n".encode())


def lines(*numbers: int) -> list[Frame]:
    return [line(number) for number in numbers]


def read(claim: Claim, engine: ScriptedEngine, engine_limit: int) -> None:
    def reader() -> Reader:
        return Reader(claim, Job.objects.get(), 10**9, engine_limit)

    log_follower.follow(engine, "name", reader(), Interrupt())  # type: ignore[arg-type]
    log_follower.read_rest(engine, "name", reader(), Interrupt())  # type: ignore[arg-type]


def stored() -> list[str]:
    return [text for chunk in LogChunk.objects.all() for _, _, text in chunk.lines]


def told() -> tuple[list[str], int]:
    """The lines of the log events, and how many gaps these tell of."""
    events = Event.objects.filter(type="orchestrator.job.log").order_by("sequence")
    data = [json.loads(bytes(event.body))["data"] for event in events]
    return [text for one in data for text in one["lines"]], sum(one.get("droppedLines", 0) for one in data)


@pytest.fixture
def claim() -> Claim:
    claim = claimed(make_job())
    lifecycle.started(claim, STARTED_AT)
    return claim


def texts(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


def test_what_the_follower_missed_at_the_end_is_read_again(claim: Claim) -> None:
    # Given an engine whose follower loses the last lines
    read(claim, ScriptedEngine(lines(1, 2, 3), lines(1, 2, 3, 4, 5)), NEVER_FULL)

    # I expect all of them once, and no word of a gap
    assert stored() == texts(1, 2, 3, 4, 5)
    assert told() == (texts(1, 2, 3, 4, 5), 0)


def test_an_engine_that_has_only_the_end_gives_the_end_and_the_gap_is_told(claim: Claim) -> None:
    # Given a log of which the engine has rotated away more than the follower saw
    read(claim, ScriptedEngine(lines(1, 2), lines(7, 8, 9)), NEVER_FULL)

    # I expect what there is, with a marker in between
    assert [text for text in stored() if not text.startswith("[")] == texts(1, 2, 7, 8, 9)
    assert stored()[2].startswith("[lines may be missing here")
    assert told() == (texts(1, 2, 7, 8, 9), 1)


def test_a_line_that_the_gap_has_cut_is_not_joined_to_another(claim: Claim) -> None:
    # Given a line that was half read when the engine rotated its rest away
    half = Frame("stdout", "2026-01-01T00:00:00.000000002Z", b"half")
    read(claim, ScriptedEngine([line(1), half, line(2, stream="stderr")], lines(7, 8)), NEVER_FULL)

    # I expect what there is of it on a line of its own, before the marker
    assert stored()[:3] == ["1", "2", "half"]
    assert stored()[3].startswith("[lines may be missing here")
    assert stored()[4:] == ["7", "8"]
    assert told() == (["1", "2", "half", "7", "8"], 1)


def test_a_rotated_log_that_overlaps_what_is_stored_has_no_gap(claim: Claim) -> None:
    # Given a log whose beginning is gone, but nothing of what is not stored yet
    read(claim, ScriptedEngine(lines(1, 2, 3, 4), lines(3, 4, 5, 6)), NEVER_FULL)

    # I expect every line once
    assert stored() == texts(1, 2, 3, 4, 5, 6)
    assert told()[1] == 0


def test_a_rotated_log_without_anything_new_adds_nothing(claim: Claim) -> None:
    read(claim, ScriptedEngine(lines(1, 2, 3, 4), lines(3, 4)), NEVER_FULL)

    assert stored() == texts(1, 2, 3, 4)
    assert told()[1] == 0


def test_what_a_rotating_follower_repeats_is_stored_once(claim: Claim) -> None:
    # Given a follower that jumps and repeats, as Docker's does while it rotates
    read(claim, ScriptedEngine(lines(1, 2, 6, 7, 6, 7, 8), lines(6, 7, 8, 9)), FULL_AT_ONCE)

    # I expect no line twice, and to be told that some may be missing
    assert [text for text in stored() if not text.startswith("[")] == texts(1, 2, 6, 7, 8, 9)
    assert told()[1] == 1


class TornEngine(ScriptedEngine):
    """It cannot read what follows the frames that it has."""

    @contextmanager
    def logs(self, name: str, *, skip: int, follow: bool, **options: Any) -> Iterator[Iterator[Frame]]:
        with super().logs(name, skip=skip, follow=follow, **options) as frames:
            yield self._torn(frames)

    @staticmethod
    def _torn(frames: Iterator[Frame]) -> Iterator[Frame]:
        yield from frames
        raise EngineRefused("the engine cannot read the log: log message is too large")


@pytest.mark.parametrize("crashes", [0, 1], ids=["at once", "after a crash"])
def test_a_log_that_the_engine_cannot_read_to_its_end_says_so(claim: Claim, crashes: int) -> None:
    # Given an engine whose disk was full while the process printed
    engine = TornEngine([], [line(1), Frame("stdout", line(2).time, b"half")])

    # When the rest is read, also by an owner that comes after one that died before the job's exit was committed
    for _ in range(crashes + 1):
        rest = Reader(claim, Job.objects.get(), 10**9, NEVER_FULL)
        log_follower.read_rest(engine, "name", rest, Interrupt())  # type: ignore[arg-type]

    # I expect what can be read, and one marker
    assert stored()[:-1] == ["1", "half"]
    assert "cannot read the rest" in stored()[-1]
    assert told() == (["1", "half"], 0)

    # and the exit event to count the gap
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)
    lifecycle.exited(claim, 0)
    assert json.loads(bytes(Event.objects.get(type="orchestrator.job.exit").body))["data"]["droppedLines"] == 1


def test_a_clock_that_goes_back_costs_no_line_while_the_first_file_lasts(claim: Claim) -> None:
    # Given a host whose clock was set back while the job printed
    frames = lines(5, 6, 1, 2)
    read(claim, ScriptedEngine(frames, frames), NEVER_FULL)

    assert stored() == texts(5, 6, 1, 2)
    assert told()[1] == 0


def test_a_gap_that_no_log_event_tells_of_is_told_by_the_exit() -> None:
    # Given a job whose callback takes no log events
    claim = claimed(make_job(callback=CallbackSpec(url="http://127.0.0.1:9/", events=("orchestrator.job.exit",))))
    lifecycle.started(claim, STARTED_AT)
    read(claim, ScriptedEngine(lines(1), lines(4, 5)), NEVER_FULL)

    # When it ends
    lifecycle.decide(claim, State.COMPLETED, None, exit_code=0, ended=STARTED_AT)
    lifecycle.exited(claim, 0)

    # I expect the exit event to say so
    assert json.loads(bytes(Event.objects.get().body))["data"]["droppedLines"] == 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
@hypothesis.settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_the_engine_cuts_lines_come_once_and_in_order(followed: int, kept_from: int, total: int) -> None:
    # Given any length that was followed, and any beginning of what the engine still has
    everything = lines(*range(1, total + 1))
    with transaction.atomic():
        claim = claimed(make_job())
        lifecycle.started(claim, STARTED_AT)
        read(claim, ScriptedEngine(everything[:followed], everything[kept_from:]), NEVER_FULL)

        # I expect what either of them had, once, in order
        had = {*range(1, min(followed, total) + 1), *range(kept_from + 1, total + 1)}
        assert [text for text in stored() if not text.startswith("[")] == texts(*sorted(had))
        # And to be told of a gap where there may be one: nothing that is left overlaps with what was followed
        assert (told()[1] > 0) == (0 < followed <= kept_from < total)
        transaction.set_rollback(True)


@pytest.mark.engine
@pytest.mark.parametrize("padding", [0, 20_000], ids=["short lines", "long lines"])
def test_no_line_of_a_log_that_docker_rotates_is_stored_twice(docker_bench: DockerBench, claim: Claim, padding: int) -> None:
    # Given a job that fills its files several times while its log is followed
    limit, count = 1024**2, 3000 if not padding else 4
    pad = f"| sed s/$/:$(head -c {padding} /dev/zero | tr '\\0' x)/" if padding else ""
    name = docker_bench.started(
        shell(f"for i in $(seq 20); do seq $((i*{count}+1)) $((i*{count}+{count})) {pad}; usleep 20000; done"),
        log_limit_bytes=limit,
    )

    # When it is read to its end
    log_follower.follow(docker_bench.engine, name, Reader(claim, Job.objects.get(), 10**9, limit), Interrupt())
    docker_bench.engine.wait(name, Interrupt(), timeout=60)
    log_follower.read_rest(docker_bench.engine, name, Reader(claim, Job.objects.get(), 10**9, limit), Interrupt())

    # I expect its lines in order and up to the last, whatever is missing
    numbers = [int(text.partition(":")[0]) for text in stored() if text[:1].isdigit()]  # others are markers, and cut lines
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 21 * count
