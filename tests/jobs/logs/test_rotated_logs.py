"""Logs that the engine rotates: no line is lost until the first file is full, and gaps are reported after that."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

import hypothesis
import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from jobs import lifecycle
from jobs.engine.protocol import EngineTraits, Frame, Frames, Observation, StreamName
from jobs.errors import EngineRefused
from jobs.interrupt import Interrupt
from jobs.lifecycle import Claim
from jobs.spec import CallbackSpec
from tests.helpers.engines import DockerBench, shell
from tests.helpers.log_frames import together
from tests.jobs.logs.log_steps import decide, dropped_lines_in_exit, log_events, log_follower, started, stored_lines

pytestmark = pytest.mark.django_db(transaction=True)

FULL_AT_ONCE: Final = 0  # an engine log limit that every log exceeds
NEVER_FULL: Final = 10**9


class RotatingEngine:
    """An ended container with two logs: one for a reader that follows it, one for later readers."""

    traits = EngineTraits()

    def __init__(self, followed: Sequence[Frame], kept: Sequence[Frame]) -> None:
        self._followed, self._kept = followed, kept

    @contextmanager
    def logs(self, _name: str, *, skip: int, follow: bool, **_: Any) -> Iterator[Iterator[Frames]]:
        yield together((self._followed if follow else self._kept)[skip:])

    def inspect(self, name: str) -> Observation:
        return Observation(name, "ended", datetime.now(UTC))

    def wait(self, *_: Any, **__: Any) -> None:
        """Return at once, since the process has ended."""


class UnreadableEngine(RotatingEngine):
    """Fails to read what follows the given frames."""

    @contextmanager
    def logs(self, name: str, *, skip: int, follow: bool, **options: Any) -> Iterator[Iterator[Frames]]:
        with super().logs(name, skip=skip, follow=follow, **options) as frames:
            yield self._broken(frames)

    @staticmethod
    def _broken(frames: Iterator[Frames]) -> Iterator[Frames]:
        yield from frames
        raise EngineRefused("the engine cannot read the log: log message is too large")


def line(number: int, *, stream: StreamName = "stdout") -> Frame:
    return Frame(stream, f"2026-01-01T00:00:00.{number:09}Z", f"{number}\n".encode())


def lines(*numbers: int) -> list[Frame]:
    return [line(number) for number in numbers]


def texts(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


def read(claim: Claim, engine: RotatingEngine, engine_log_limit: int = NEVER_FULL) -> None:
    log_follower(engine, claim, engine_log_limit=engine_log_limit).follow()
    log_follower(engine, claim, engine_log_limit=engine_log_limit).read_rest()


def stored_without_markers() -> list[str]:
    return [text for text in stored_lines() if not text.startswith("[")]


def published() -> tuple[list[str], int]:
    """Return the lines of all log events, and the number of gaps that these report."""
    events = log_events()
    return [text for data in events for text in data["lines"]], sum(data.get("droppedLines", 0) for data in events)


@pytest.fixture
def claim() -> Claim:
    return started()


def test_lines_that_the_follower_missed_are_read_again(claim: Claim) -> None:
    # Given an engine that loses the last lines of a followed log
    read(claim, RotatingEngine(lines(1, 2, 3), lines(1, 2, 3, 4, 5)))

    # I expect each line once, and no gap
    assert stored_lines() == texts(1, 2, 3, 4, 5)
    assert published() == (texts(1, 2, 3, 4, 5), 0)


def test_a_gap_between_stored_and_kept_lines_is_marked(claim: Claim) -> None:
    # Given a log of which the engine has rotated away lines that were never read
    read(claim, RotatingEngine(lines(1, 2), lines(7, 8, 9)))

    # I expect the lines that are left, and a marker for the gap
    assert stored_without_markers() == texts(1, 2, 7, 8, 9)
    assert stored_lines()[2].startswith("[lines may be missing here")
    assert published() == (texts(1, 2, 7, 8, 9), 1)


def test_a_line_cut_by_a_gap_is_not_joined_to_the_next(claim: Claim) -> None:
    # Given a line whose second half was rotated away
    half = Frame("stdout", "2026-01-01T00:00:00.000000002Z", b"half")
    read(claim, RotatingEngine([line(1), half, line(2, stream="stderr")], lines(7, 8)))

    # I expect its first half on a line of its own, before the marker
    assert stored_lines()[:3] == ["1", "2", "half"]
    assert stored_lines()[3].startswith("[lines may be missing here")
    assert stored_lines()[4:] == ["7", "8"]
    assert published() == (["1", "2", "half", "7", "8"], 1)


def test_a_rotated_log_that_overlaps_the_stored_one_has_no_gap(claim: Claim) -> None:
    read(claim, RotatingEngine(lines(1, 2, 3, 4), lines(3, 4, 5, 6)))

    assert stored_lines() == texts(1, 2, 3, 4, 5, 6)
    assert published()[1] == 0


def test_a_rotated_log_without_new_lines_adds_nothing(claim: Claim) -> None:
    read(claim, RotatingEngine(lines(1, 2, 3, 4), lines(3, 4)))

    assert stored_lines() == texts(1, 2, 3, 4)
    assert published()[1] == 0


def test_lines_repeated_during_a_rotation_are_stored_once(claim: Claim) -> None:
    # Given a follower that skips and repeats lines, as Docker's does during a rotation
    read(claim, RotatingEngine(lines(1, 2, 6, 7, 6, 7, 8), lines(6, 7, 8, 9)), FULL_AT_ONCE)

    # I expect each line once, and one gap to be reported
    assert stored_without_markers() == texts(1, 2, 6, 7, 8, 9)
    assert published()[1] == 1


def test_a_last_line_repeated_during_a_rotation_is_stored_once(claim: Claim) -> None:
    # Given a follower that goes back to the line that it has read last
    read(claim, RotatingEngine(lines(1, 2, 3, 3, 4), lines(3, 4)), FULL_AT_ONCE)

    assert stored_without_markers() == texts(1, 2, 3, 4)


def test_pieces_of_a_line_with_the_same_time_are_not_repeated(claim: Claim) -> None:
    # Given the pieces of two long lines, which Docker gives the time of their first
    frames = [Frame("stdout", line(number).time, data) for number in (1, 2) for data in (b"a", b"b\n")]
    read(claim, RotatingEngine(frames, frames), FULL_AT_ONCE)

    assert stored_without_markers() == ["ab", "ab"]


@pytest.mark.parametrize("crashes", [0, 1], ids=["no crash", "one crash"])
def test_an_unreadable_rest_of_a_log_is_marked_once(claim: Claim, crashes: int) -> None:
    # Given an engine whose disk was full while the process printed
    engine = UnreadableEngine([], [line(1), Frame("stdout", line(2).time, b"half")])

    # When the rest is read, maybe again by the next owner, because the first died before it committed the exit
    for _ in range(crashes + 1):
        log_follower(engine, claim).read_rest()

    # I expect the readable lines and one marker
    assert stored_lines()[:-1] == ["1", "half"]
    assert "cannot read the rest" in stored_lines()[-1]
    assert published() == (["1", "half"], 0)

    # And the exit event to count the gap
    decide(claim)
    lifecycle.exited(claim, 0)
    assert dropped_lines_in_exit() == 1


def test_a_clock_set_back_loses_no_line_before_the_first_file_is_full(claim: Claim) -> None:
    frames = lines(5, 6, 1, 2)
    read(claim, RotatingEngine(frames, frames))

    assert stored_lines() == texts(5, 6, 1, 2)
    assert published()[1] == 0


def test_the_exit_event_counts_gaps_if_log_events_are_not_wanted() -> None:
    # Given
    claim = started(callback=CallbackSpec(url="http://127.0.0.1:9/", events=("orchestrator.job.exit",)))
    read(claim, RotatingEngine(lines(1), lines(4, 5)))

    # When
    decide(claim)
    lifecycle.exited(claim, 0)

    # I expect
    assert dropped_lines_in_exit() == 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
@hypothesis.settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_stored_once_and_in_order_wherever_the_log_is_cut(followed: int, kept_from: int, total: int) -> None:
    # Given any number of lines that were followed, and any number that the engine has rotated away
    everything = lines(*range(1, total + 1))
    with transaction.atomic():
        read(started(), RotatingEngine(everything[:followed], everything[kept_from:]))

        # I expect the lines of both, once and in order
        expected = {*range(1, min(followed, total) + 1), *range(kept_from + 1, total + 1)}
        assert stored_without_markers() == texts(*sorted(expected))
        # And a gap to be reported if the two do not overlap
        assert (published()[1] > 0) == (0 < followed <= kept_from < total)
        transaction.set_rollback(True)


@pytest.mark.engine
@pytest.mark.parametrize("padding", [0, 20_000], ids=["short lines", "long lines"])
def test_no_line_of_a_log_rotated_by_docker_is_stored_twice(docker_bench: DockerBench, claim: Claim, padding: int) -> None:
    # Given a job that fills its log files several times while its log is followed
    limit, count = 1024**2, 3000 if not padding else 4
    pad = f"| sed s/$/:$(head -c {padding} /dev/zero | tr '\\0' x)/" if padding else ""
    name = docker_bench.started(
        shell(f"for i in $(seq 20); do seq $((i*{count}+1)) $((i*{count}+{count})) {pad}; usleep 20000; done"),
        log_limit_bytes=limit,
    )

    # When
    follower = log_follower(docker_bench.engine, claim, name=name, engine_log_limit=limit)
    # Docker 20.10 sometimes fails to read a file during its rotation; the job then reads the rest
    with suppress(EngineRefused), closing(follower):
        follower.follow()
    docker_bench.engine.wait(name, Interrupt(), timeout=60)
    log_follower(docker_bench.engine, claim, name=name, engine_log_limit=limit).read_rest()

    # I expect increasing numbers up to the last line, whatever is missing
    numbers = [int(text.partition(":")[0]) for text in stored_lines() if text[:1].isdigit()]  # not markers and cut lines
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 21 * count
