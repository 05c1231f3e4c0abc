"""Frames of the logs of Docker's drivers, in particular lines over 16 KiB, where versions differ."""

from collections.abc import Iterable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.engine.answer_stream import ByteStream
from jobs.engine.docker import log_frames
from jobs.engine.protocol import Frame
from tests.helpers.log_frames import flat

pytestmark = pytest.mark.stateless

PIECE = 16 * 1024


class Body:
    """A complete answer, which is received in pieces of `size` bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    def read(self) -> bytes:
        taken, self._data = self._data[: self._size], self._data[self._size :]
        return taken


def docker(lines: Iterable[tuple[int, bytes, bool]], *, keeps_line_feed: bool) -> bytes:
    """Return a log as Docker's API sends it. A line is its stream, its text, and whether it ends in a line feed.

    Before 23.0 the driver `local` does not keep the line feed of a line that it has cut.
    """
    log = b""
    for number, (stream, text, ended) in enumerate(lines):
        time = b"2026-01-01T00:00:00.%09dZ" % number
        pieces = [text[at : at + PIECE] for at in range(0, len(text) + 1, PIECE)]
        if not ended and not pieces[-1]:
            del pieces[-1]
        if ended and (keeps_line_feed or len(pieces) == 1):
            pieces[-1] += b"\n"
        for piece in pieces:
            payload = time + b" " + piece
            log += bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload
    return log


def read(log: bytes, *, skip: int = 0, size: int = 64 * 1024) -> list[Frame]:
    body = cast("ByteStream", Body(log, size))
    return flat(log_frames.read_frames(body, skip=skip, max_pause=None))


def text(frames: Iterable[Frame], stream: str = "stdout") -> bytes:
    return b"".join(frame.data for frame in frames if frame.stream == stream)


def lines_of(stream: int, texts: list[bytes], *, ended: bool) -> list[tuple[int, bytes, bool]]:
    """Return the lines of a stream, the last one with or without a line feed."""
    return [(stream, one, ended or number < len(texts)) for number, one in enumerate(texts, 1)]


some_texts = st.lists(
    st.sampled_from([0, 1, 5, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 7]).map(lambda size: b"x" * size), max_size=5
)


@given(out=some_texts, err=some_texts, ended=st.booleans(), order=st.randoms(use_true_random=False), skip=st.integers(0, 20))
@settings(max_examples=60)
def test_every_line_feed_is_restored(out: list[bytes], err: list[bytes], ended: bool, order: object, skip: int) -> None:
    # Given a log of two streams with long and short lines
    queues = [lines_of(1, out, ended=ended), lines_of(2, err, ended=True)]
    lines = []
    while any(queues):
        lines.append(order.choice([queue for queue in queues if queue]).pop(0))  # type: ignore[attr-defined]

    # When it is read from a Docker that keeps all line feeds
    frames = read(docker(lines, keeps_line_feed=True))

    # I expect what was printed
    for number, stream in ((1, "stdout"), (2, "stderr")):
        assert text(frames, stream) == b"".join(line + b"\n" * end for of, line, end in lines if of == number)

    # When it is read from one that does not, I expect the same, except the line feed of a long last line
    older = read(docker(lines, keeps_line_feed=False))
    for stream in ("stdout", "stderr"):
        whole = text(frames, stream)
        last = whole.removesuffix(b"\n").rpartition(b"\n")[2]
        unknown = len(last) > PIECE and len(last) % PIECE
        assert text(older, stream) == (whole.removesuffix(b"\n") if unknown else whole)

    # And the same from any frame on, wherever what is received ends
    for size in (1000, PIECE + 5):
        assert read(docker(lines, keeps_line_feed=False), skip=skip, size=size) == older[skip:]


def test_a_line_cut_by_an_engine_restart_is_not_split() -> None:
    # Given a line of which the engine wrote a piece before a restart and the rest after it
    first, rest = docker([(1, b"x" * PIECE, False)], keeps_line_feed=True), docker([(1, b"y", True)], keeps_line_feed=True)

    frames = read(first + rest.replace(b"00.000000000Z", b"09.000000000Z"))

    assert text(frames) == b"x" * PIECE + b"y\n"
