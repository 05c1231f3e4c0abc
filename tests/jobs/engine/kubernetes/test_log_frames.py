"""The frames of a pod's log as the API gives it: lines with times, pieces of long lines, and what is not a log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.kubernetes.logs.log_frames import PIECE_BYTES, LogDecoder, time_at_start
from jobs.engine.protocol import Frame
from jobs.errors import EngineUnavailable

pytestmark = pytest.mark.stateless


def time(number: int) -> str:
    return f"2026-01-01T00:00:{number // 10**9:02}.{number % 10**9:09}Z"


def decode(*parts: bytes, may_begin_in_line: bool = False) -> list[Frame]:
    decoder = LogDecoder(may_begin_in_line=may_begin_in_line)
    decoded = [*map(decoder.decode, parts), decoder.finish()]
    return [frame for frames in decoded if frames is not None for frame in frames]


def cut(log: bytes, size: int) -> list[bytes]:
    return [log[start : start + size] for start in range(0, len(log), size)]


def log_of(*lines: bytes) -> bytes:
    return b"".join(f"{time(number)} ".encode() + line for number, line in enumerate(lines))


def test_each_line_is_a_frame_with_its_time() -> None:
    assert decode(log_of(b"one\n", b"\n", b"a\0\xff\r\n")) == [
        Frame("stdout", time(0), b"one\n"),
        Frame("stdout", time(1), b"\n"),
        Frame("stdout", time(2), b"a\0\xff\r\n"),
    ]


def test_a_last_line_without_a_line_feed_has_none() -> None:
    assert [frame.data for frame in decode(log_of(b"one\n", b"two"))] == [b"one\n", b"two"]


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_long_line_has_several_frames_with_one_time(size: int, end: bytes) -> None:
    frames = decode(*cut(log_of(b"a\n", b"x" * size + end), 1000))

    assert frames[0] == Frame("stdout", time(0), b"a\n")
    assert b"".join(frame.data for frame in frames[1:]) == b"x" * size + end
    assert {frame.time for frame in frames[1:]} == {time(1)}
    assert max(len(frame.data) for frame in frames) <= PIECE_BYTES


short = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"") + b"\n")
long = st.integers(PIECE_BYTES - 20, 2 * PIECE_BYTES + 20).map(lambda size: b"y" * size + b"\n")


@given(st.lists(st.one_of(short, short, long), max_size=8), st.integers(1, 40_000), st.booleans())
def test_frames_do_not_depend_on_where_the_answer_is_cut(lines: list[bytes], size: int, ends: bool) -> None:
    log = log_of(*lines) if ends else log_of(*lines).removesuffix(b"\n")

    frames = decode(*cut(log, size))

    assert frames == decode(log)
    printed = b"".join(lines)
    assert b"".join(frame.data for frame in frames) == (printed if ends else printed.removesuffix(b"\n"))


def test_times_are_in_utc_so_that_they_can_be_compared() -> None:
    assert [frame.time for frame in decode(b"2026-01-01T01:30:00.000000001+02:00 one\n")] == ["2025-12-31T23:30:00.000000001Z"]


def test_what_is_no_log_is_an_error_and_not_a_line() -> None:
    with pytest.raises(EngineUnavailable, match="too many open files"):
        decode(log_of(b"one\n") + b"failed to create fsnotify watcher: too many open files")
    with pytest.raises(EngineUnavailable):
        decode(b"rpc error\n" + log_of(b"one\n"))


@pytest.mark.parametrize("rest", [b"rest of a line\n", b"x" * 50_000 + b"\n"])
@pytest.mark.parametrize("size", [1000, 100_000])
def test_the_rest_of_a_line_at_the_start_is_left_out(rest: bytes, size: int) -> None:
    frames = decode(*cut(rest + log_of(b"one\n", b"two\n"), size), may_begin_in_line=True)

    assert [frame.data for frame in frames] == [b"one\n", b"two\n"]


def test_only_the_first_line_may_have_no_time() -> None:
    with pytest.raises(EngineUnavailable):
        decode(log_of(b"one\n") + b"rest\n", may_begin_in_line=True)
    with pytest.raises(EngineUnavailable):
        decode(log_of(b"one\n"), b"rest\n", may_begin_in_line=True)


def test_the_time_at_the_start_of_a_log_is_found() -> None:
    assert time_at_start(log_of(b"one\n")[:31]) == time(0)
    assert time_at_start(b"") == ""
    assert time_at_start(b"2026-01-01T01:30:00.000000001+02:00 ") == "2025-12-31T23:30:00.000000001Z"
