"""The end of a long log: its reader reads on after the decision, and looks at the last frames instead of reading all again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import hypothesis
import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from jobs.engine.protocol import EngineTraits, Frame, Frames, Observation, StreamName
from jobs.errors import EngineUnavailable
from jobs.lifecycle import Claim
from orchestrator_site.base.intervals import LogIntervals
from tests.helpers.log_frames import alone
from tests.jobs.logs.log_steps import log_events, log_follower, started, stored_lines

pytestmark = pytest.mark.django_db(transaction=True)

CHECK_AT_ONCE: Final = LogIntervals(exit_check=0.0)  # the end of the process is noticed after the first frame
NEVER_FULL: Final = 10**9
FULL_AT_ONCE: Final = 0


class EndedContainer:
    """A container whose process has ended. A reader that follows its log gets the first frames only, then an error or no end."""

    traits = EngineTraits()

    def __init__(
        self, log: Sequence[Frame], *, followed: int | None = None, error: Exception | None = None, endless: bool = False
    ) -> None:
        self._log, self._followed, self._error, self._endless = log, log[:followed], error, endless
        self.opened: list[str] = []
        self.open = 0

    @contextmanager
    def logs(
        self, _name: str, *, skip: int, follow: bool, tail: int | None = None, **_: Any
    ) -> Iterator[Iterator[Frames | None]]:
        self.opened.append("followed" if follow else "all" if tail is None else "tail")
        self.open += 1
        yield self._frames(
            self._followed if follow else self._log, skip if tail is None else -tail, self._error if follow else None
        )
        self.open -= 1

    def _frames(self, log: Sequence[Frame], start: int, error: Exception | None) -> Iterator[Frames | None]:
        yield from map(alone, log[start:])
        if self._endless and log is self._followed:
            yield None
            raise AssertionError("the reader waits for ever")
        if error is not None:
            raise error

    def inspect(self, name: str) -> Observation:
        return Observation(name, "ended", datetime.now(UTC))

    def wait(self, *_: Any, **__: Any) -> None:
        """Return at once, since the process has ended."""


def frame(number: int, *, stream: StreamName = "stdout", end: bytes = b"\n") -> Frame:
    return Frame(stream, f"2026-01-01T00:00:00.{number:09}Z", b"%d" % number + end)


def texts(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def read(engine: EndedContainer, claim: Claim, engine_log_limit: int = NEVER_FULL) -> None:
    follower = log_follower(engine, claim, intervals=CHECK_AT_ONCE, engine_log_limit=engine_log_limit)
    follower.follow()
    follower.read_rest()
    assert engine.open == 0


@pytest.fixture
def claim() -> Claim:
    return started()


def test_what_was_not_read_when_the_process_ended_is_read_on(claim: Claim) -> None:
    # Given a log of which one frame was read when the process ended
    engine = EndedContainer([frame(number) for number in range(500)])

    read(engine, claim)

    # I expect each line once, although the log was opened once, and its last frames once more
    assert stored_lines() == texts(500)
    assert engine.opened == ["followed", "tail"]


@pytest.mark.parametrize("lost", [1, 40], ids=["the last frame", "some frames"])
def test_lines_that_a_followed_log_lost_are_in_its_last_frames(claim: Claim, lost: int) -> None:
    engine = EndedContainer([frame(number) for number in range(500)], followed=500 - lost)

    read(engine, claim)

    assert stored_lines() == texts(500)
    assert engine.opened == ["followed", "tail"]


def test_a_log_that_lost_more_is_read_again(claim: Claim) -> None:
    engine = EndedContainer([frame(number) for number in range(500)], followed=100)

    read(engine, claim)

    assert stored_lines() == texts(500)
    assert engine.opened == ["followed", "tail", "all"]


def test_a_followed_log_that_breaks_off_is_read_again(claim: Claim) -> None:
    engine = EndedContainer([frame(number) for number in range(500)], followed=100, error=EngineUnavailable("closed"))

    read(engine, claim)

    assert stored_lines() == texts(500)


def test_nobody_waits_for_the_end_of_a_followed_log_that_pauses_after_the_process(claim: Claim) -> None:
    engine = EndedContainer([frame(number) for number in range(500)], followed=490, endless=True)

    read(engine, claim)

    assert stored_lines() == texts(500)
    assert engine.opened == ["followed", "tail"]


def test_a_log_that_stopped_in_the_middle_of_a_line_is_read_again(claim: Claim) -> None:
    # Given an unfinished line before the last frame that was read: how it goes on cannot be seen from the last frames alone
    log = [*map(frame, range(100)), frame(100, stream="stderr", end=b""), frame(101), frame(102, stream="stderr")]
    engine = EndedContainer(log, followed=102)

    read(engine, claim)

    assert "tail" not in engine.opened
    assert stored_lines() == [*texts(100), "101", "100102"]


def test_a_log_that_may_have_been_rotated_is_read_again(claim: Claim) -> None:
    engine = EndedContainer([frame(number) for number in range(100)], followed=99)

    read(engine, claim, FULL_AT_ONCE)

    assert "tail" not in engine.opened
    assert stored_lines() == texts(100)


def test_equal_frames_are_not_taken_for_one_another(claim: Claim) -> None:
    # Given frames that differ in nothing, as on a host whose clock stands still
    engine = EndedContainer([frame(0), *[frame(1)] * 5], followed=4)

    read(engine, claim)

    assert stored_lines() == ["0", *["1"] * 5]
    assert engine.opened == ["followed", "tail", "all"]


@given(
    log=st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from([b"\n", b"\n", b""])), max_size=150),
    followed=st.integers(0, 150),
)
@hypothesis.settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_lines_are_those_of_a_log_that_was_read_at_once(log: list[tuple[StreamName, bytes]], followed: int) -> None:
    frames = [frame(number, stream=stream, end=end) for number, (stream, end) in enumerate(log)]
    with transaction.atomic():
        # Given what a new reader finds in the whole log
        log_follower(EndedContainer(frames), started()).read_rest()
        expected = stored_lines()
        transaction.set_rollback(True)
    with transaction.atomic():
        # When a reader followed a part of it, and reads the rest
        read(EndedContainer(frames, followed=followed), started())

        assert stored_lines() == expected
        assert sorted(text for data in log_events() for text in data["lines"]) == sorted(expected)
        transaction.set_rollback(True)
