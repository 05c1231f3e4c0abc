"""Which frames of a rotated log are new, and which were read before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.protocol import Frame, StreamName
from jobs.logs.rotation_detector import FrameKind, RotationDetector
from tests.helpers.log_frames import alone, together

pytestmark = pytest.mark.stateless

NEW, NEW_AFTER_GAP, REPEATED, REPEATED_AFTER_GAP = FrameKind


def frame(time: int, stream: StreamName = "stdout") -> Frame:
    return Frame(stream, f"{time:04}", b"x\n")


def read(detector: RotationDetector, *frames: Frame) -> list[FrameKind]:
    kinds = []
    for one in frames:
        kinds.append(detector.classify(one))
        if kinds[-1] in (NEW, NEW_AFTER_GAP):
            detector.accept(one)
    return kinds


def detector(*, first_file_bytes: int = 10**6) -> RotationDetector:
    """Return a detector that has accepted the frames 1 to 3 of stdout."""
    made = RotationDetector({"stdout": "", "stderr": ""}, engine_bytes=0, first_file_bytes=first_file_bytes)
    assert read(made, frame(1), frame(2), frame(3)) == [NEW] * 3
    return made


def test_an_older_frame_is_new_until_the_first_file_is_full() -> None:
    assert read(detector(), frame(2), frame(3)) == [NEW, NEW]


def test_a_decrease_in_a_rotated_log_is_a_gap_and_repeats() -> None:
    kinds = read(detector(first_file_bytes=90), frame(2), frame(3), frame(4))

    assert kinds == [REPEATED_AFTER_GAP, REPEATED, NEW]


def test_a_whole_line_of_the_same_time_repeats_in_a_rotated_log() -> None:
    assert read(detector(first_file_bytes=90), frame(3), frame(4)) == [REPEATED_AFTER_GAP, NEW]


def test_a_restart_that_overlaps_repeats_without_a_gap() -> None:
    restarted = detector()
    restarted.restart()

    assert read(restarted, frame(2), frame(3), frame(3), frame(4)) == [REPEATED, REPEATED, REPEATED, NEW]


def test_a_restart_behind_the_last_frame_has_a_gap() -> None:
    restarted = detector()
    restarted.restart()

    assert read(restarted, frame(5), frame(6)) == [NEW_AFTER_GAP, NEW]


def test_a_restart_has_no_gap_in_a_stream_without_frames() -> None:
    restarted = detector()
    restarted.restart()

    assert read(restarted, frame(5, "stderr")) == [NEW]


def test_the_last_accepted_frame_shows_that_the_log_was_not_rotated() -> None:
    assert detector().is_last_accepted(alone(frame(3)))
    assert not detector().is_last_accepted(alone(frame(2)))


some_frames = st.lists(st.builds(frame, st.integers(1, 9), st.sampled_from(["stdout", "stderr"])), max_size=6)


@given(
    parts=st.lists(st.tuples(st.booleans(), some_frames), max_size=6),
    first_file_bytes=st.sampled_from([0, 120, 300, 10**6]),
)
def test_frames_are_accepted_together_exactly_if_each_is_new(
    parts: list[tuple[bool, list[Frame]]], first_file_bytes: int
) -> None:
    # Given two readers of the same frames, which sometimes start again
    one_by_one, at_once = detector(first_file_bytes=first_file_bytes), detector(first_file_bytes=first_file_bytes)
    for restarted, frames in parts:
        if restarted:
            one_by_one.restart()
            at_once.restart()

        # When one takes as many as possible together
        for some in together(frames):
            kinds = read(one_by_one, *some)
            if at_once.accept_all(some):
                assert kinds == [NEW] * len(some)
            else:
                assert read(at_once, *some) == kinds

            # I expect both to be in the same state
            assert (at_once.last_times, at_once.engine_bytes) == (one_by_one.last_times, one_by_one.engine_bytes)
            assert (at_once._restarted, at_once._repeating) == (one_by_one._restarted, one_by_one._repeating)


def test_ordinary_frames_are_accepted_together() -> None:
    (some,) = together([frame(4), frame(5), frame(6)])

    assert detector(first_file_bytes=90).accept_all(some)


def test_pieces_of_lines_are_not_accepted_together() -> None:
    # They take more of the engine's disk than whole lines, and may share a time with the next frame.
    (some,) = together([frame(4), Frame("stdout", "0005", b"x")])

    assert not detector().accept_all(some)
