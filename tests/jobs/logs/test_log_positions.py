"""Logs of engines that find a place in a log by its time: no line is lost or stored twice, wherever reading stops."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import hypothesis
import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from jobs.engine.protocol import EngineTraits, Frame, Frames, LogPosition, Observation
from jobs.errors import EngineUnavailable
from jobs.lifecycle import Claim
from jobs.models import Job
from tests.helpers.log_frames import together
from tests.jobs.logs.log_steps import log_events, log_follower, started, stored_lines

pytestmark = pytest.mark.django_db(transaction=True)


class PositionEngine:
    """An ended container whose log is read in parts: each opening gives some frames, then breaks off, but the last one."""

    traits = EngineTraits(merges_streams=True, finds_log_positions=True)

    def __init__(self, log: Sequence[Frame], parts: Sequence[int] = ()) -> None:
        self.log = log
        self.asked: list[LogPosition] = []
        self._parts = iter(parts)

    @contextmanager
    def logs(self, _name: str, *, skip: int, after: LogPosition, **_: Any) -> Iterator[Iterator[Frames]]:
        assert skip == 0
        self.asked.append(after)
        yield self._read(after)

    def _read(self, after: LogPosition) -> Iterator[Frames]:
        ends = [number for number in range(len(self.log) + 1) if LogPosition("", 0) != after == self._place(number)]
        left = list(together(self.log[ends[0] :] if ends else self.log))
        if after.frames and not ends and left:
            left[0] = replace(left[0], after_gap=True)
        part = next(self._parts, None)
        if part is None:
            yield from left
            return
        for frames in left:
            if frames.part(0, part).times:
                yield frames.part(0, part)
        raise EngineUnavailable("the connection broke")

    def _place(self, number: int) -> LogPosition:
        times = [frame.time for frame in self.log[:number]]
        return LogPosition("", 0).moved(times) if times else LogPosition("", 0)

    def inspect(self, name: str) -> Observation:
        return Observation(name, "ended", datetime.now(UTC))

    def wait(self, *_: Any, **__: Any) -> None:
        """Return at once, since the process has ended."""


def frame(second: int, data: str) -> Frame:
    return Frame("stdout", f"2026-01-01T00:00:{second:02}.000000000Z", data.encode())


def read(engine: PositionEngine, claim: Claim) -> None:
    """Read a log to its end as owners do of which each dies where the log breaks off."""
    while True:
        try:
            log_follower(engine, claim, engine_log_limit=None).follow()
        except EngineUnavailable:
            continue
        log_follower(engine, claim, engine_log_limit=None).read_rest()
        return


@pytest.fixture
def claim() -> Claim:
    return started()


def test_a_new_owner_reads_on_where_the_last_one_committed(claim: Claim) -> None:
    # Given a log with two lines of the same time, of which the first owner commits one
    engine = PositionEngine([frame(1, "a\n"), frame(2, "b\n"), frame(2, "c\n"), frame(3, "d\n")])
    writer = log_follower(engine, claim, engine_log_limit=None)._writer
    writer.write(next(iter(engine._read(LogPosition("", 0)))).part(0, 2))
    writer.write(None)

    read(engine, claim)

    assert engine.asked[0] == LogPosition(frame(2, "").time, 1)
    assert stored_lines() == ["a", "b", "c", "d"]


def test_the_position_counts_frames_of_one_time_over_commits(claim: Claim) -> None:
    # Given a long line, whose pieces have the same time, read in several parts
    pieces = [frame(1, "x" * 100) for _ in range(5)]
    follower = log_follower(PositionEngine([]), claim, engine_log_limit=None)
    for some in (pieces[:2], pieces[2:3], [*pieces[3:], frame(1, "\n")]):
        (frames,) = together(some)
        follower._writer.write(frames)
    follower._writer.write(None)

    job = Job.objects.get()
    assert (job.log_last_stdout, job.log_last_count) == (frame(1, "").time, 6)


def test_a_gap_that_the_engine_reports_is_marked(claim: Claim) -> None:
    # Given an owner that has read half a line before the node rotated the log
    writer = log_follower(PositionEngine([]), claim, engine_log_limit=None)._writer
    writer.write(Frames("stdout", [frame(1, "").time, frame(2, "").time], [b"a\n", b"half"]))
    writer.write(None)

    # When the next one reads on
    read(PositionEngine([frame(5, "b\n"), frame(6, "c\n")]), claim)

    # I expect a marker between them, and what was cut off not to be joined with what follows
    lines = stored_lines()
    assert [text for text in lines if not text.startswith("[")] == ["a", "half", "b", "c"]
    assert lines[2] == "[lines may be missing here: the node rotated the log]"
    assert sum(data.get("droppedLines", 0) for data in log_events()) == 1


def test_a_gap_at_the_end_of_a_log_is_marked(claim: Claim) -> None:
    # Given a gap that the engine has noticed after the last line
    follower = log_follower(PositionEngine([frame(1, "a\n")]), claim, engine_log_limit=None)
    follower._writer.write(Frames("stdout", [frame(1, "").time], [b"a\n"]))
    follower._writer.write(Frames("stdout", (), (), after_gap=True))

    follower.read_rest()

    assert stored_lines() == ["a", "[lines may be missing here: the node rotated the log]"]
    assert Job.objects.get().log_dropped == 1


def test_lines_are_stored_in_the_order_of_the_log_even_if_their_times_go_back(claim: Claim) -> None:
    read(PositionEngine([frame(5, "a\n"), frame(3, "b\n"), frame(3, "c\n"), frame(4, "d\n")]), claim)

    assert stored_lines() == ["a", "b", "c", "d"]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["x\n", "y", "\n", "long" * 9])), max_size=12),
    st.lists(st.integers(0, 5), max_size=5),
)
@hypothesis.settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_text_is_the_same_wherever_reading_breaks_off(steps: list[tuple[int, str]], parts: list[int]) -> None:
    # Given a log, of which several frames in a row may have the same time
    second, log = 1, []
    for later, data in steps:
        second += later
        log.append(frame(second, data))
    with transaction.atomic():
        read(PositionEngine(log, parts), started())

        # I expect the printed lines, each once
        printed = "".join(data for _, data in steps)
        assert stored_lines() == printed.removesuffix("\n").split("\n") if printed else not stored_lines()
        transaction.set_rollback(True)
