"""Frames of bytes become lines, batches and events, and reading resumes from a cursor."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import log_lines
from jobs.engine.protocol import Frame, StreamName
from jobs.log_lines import MAX_BATCH_BYTES, MAX_EVENT_BYTES, Batch, Cursor, Ending, Line, LineSplitter, encoded_size, group
from tests.helpers.log_frames import alone, together

pytestmark = pytest.mark.stateless

STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")
SMALL_LIMIT = 24  # bytes, so that short logs have lines of several pieces


def out(data: bytes, time: str = "t") -> Frame:
    return Frame("stdout", time, data)


def err(data: bytes, time: str = "t") -> Frame:
    return Frame("stderr", time, data)


def read(frames: Iterable[Frame], cursor: Cursor | None = None) -> Batch:
    """Return all lines of a log that ends after `frames`."""
    splitter = LineSplitter(cursor)
    for some in together(frames):
        splitter.feed(some)
    splitter.finish()
    return splitter.take()


@contextmanager
def small_limit(limit: int = SMALL_LIMIT) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_lines._Unfinished, "max_size", limit - len('[""]'))
        yield


def texts(lines: Iterable[Line], stream: StreamName = "stdout") -> list[str]:
    return [line.text for line in lines if line.stream == stream]


def printed(lines: Iterable[Line], stream: StreamName) -> str:
    """Restore the text of a stream from its lines."""
    return "".join(line.text + ("\n" if line.ending == Ending.LINE_FEED else "") for line in lines if line.stream == stream)


def as_json(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def reference(data: bytes, limit: int) -> list[str]:
    """Split lines without streaming: decode everything, split at LF, cut long lines."""
    *ended, last = data.decode(errors="replace").replace("\0", "\ufffd").split("\n")
    pieces: list[str] = []
    for line in [*ended, last] if last else ended:
        piece = ""
        for character in line:
            if as_json([piece + character]) > limit:
                pieces.append(piece)
                piece = ""
            piece += character
        pieces.append(piece)
    return pieces


# Short sequences of difficult bytes: line ends, NUL, escapes, characters of each length, and parts of them.
hard_bytes = st.lists(
    st.one_of(
        st.sampled_from([b"\n", b"\r\n", b"\0", b'"', b"\\", b"\x1b", b"a", "é".encode(), "€".encode(), "😀".encode()]),
        st.sampled_from([b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf"]),
        st.binary(max_size=3),
    ),
    max_size=40,
).map(b"".join)
some_frames = st.lists(
    st.builds(Frame, stream=st.sampled_from(STREAMS), time=st.sampled_from(["t1", "t2", "t3"]), data=hard_bytes), max_size=12
)


def whole_lines(frames: list[Frame]) -> list[Frame]:
    """Return the frames with one line feed each, at the end."""
    return [Frame(one.stream, one.time, one.data.replace(b"\n", b"") + b"\n") for one in frames]


class TestLines:
    def test_a_line_ends_at_its_line_feed(self) -> None:
        # Given a log of two lines, cut anywhere
        frames = [out(b"one\ntw"), out(b"o\n")]
        # I expect them without their line feeds
        assert texts(read(frames).lines) == ["one", "two"]

    def test_empty_lines_and_carriage_returns_are_kept(self) -> None:
        assert texts(read([out(b"\n\na\r\n")]).lines) == ["", "", "a\r"]

    def test_the_last_line_needs_no_line_feed(self) -> None:
        assert texts(read([out(b"a\nb")]).lines) == ["a", "b"]

    def test_a_final_line_feed_adds_no_empty_line(self) -> None:
        assert texts(read([out(b"a\n")]).lines) == ["a"]

    def test_the_streams_do_not_mix(self) -> None:
        # Given frames of two streams that alternate
        lines = read([out(b"a"), err(b"x"), out(b"b\n"), err(b"y\n")]).lines
        # I expect a complete line of each
        assert (texts(lines), texts(lines, "stderr")) == (["ab"], ["xy"])

    def test_a_line_has_the_time_at_which_it_began(self) -> None:
        lines = read([out(b"a", "t1"), out(b"b\nc\nd", "t2"), out(b"e", "t3")]).lines
        assert [(line.text, line.time) for line in lines] == [("ab", "t1"), ("c", "t2"), ("de", "t2")]

    def test_a_character_split_over_two_frames_is_joined(self) -> None:
        first, second = "€".encode()[:2], "€".encode()[2:]
        assert texts(read([out(first), out(second + b"\n")]).lines) == ["€"]

    def test_nul_and_invalid_utf_8_are_replaced(self) -> None:
        assert texts(read([out(b"a\0b\xffc\xe2\x82\n")]).lines) == ["a\ufffdb\ufffdc\ufffd"]

    def test_an_incomplete_last_character_is_replaced(self) -> None:
        assert texts(read([out(b"a\xf0\x9f")]).lines) == ["a\ufffd"]

    @given(frames=some_frames)
    def test_lines_do_not_depend_on_frames(self, frames: list[Frame]) -> None:
        lines = read(frames).lines
        for stream in STREAMS:
            whole = b"".join(frame.data for frame in frames if frame.stream == stream)
            assert texts(lines, stream) == reference(whole, MAX_EVENT_BYTES)

    @given(parts=st.lists(some_frames.map(whole_lines) | some_frames, max_size=4))
    def test_frames_that_come_together_give_the_same_lines(self, parts: list[list[Frame]]) -> None:
        # Given frames with whole lines, as they usually are, and others
        frames = [frame for part in parts for frame in part]
        for limit in (SMALL_LIMIT, 10 * SMALL_LIMIT):
            with small_limit(limit):
                one_by_one, at_once = LineSplitter(), LineSplitter()
                # When they come one by one, or as many as possible together
                for frame in frames:
                    one_by_one.feed(alone(frame))
                for some in together(frames):
                    at_once.feed(some)
                # I expect the same lines with the same times, and the same cursor
                expected, batch = one_by_one.take(), at_once.take()
            assert batch == expected


class TestLongLines:
    @pytest.mark.parametrize("character", ["a", '"', "\x1b", "é", "€", "😀", "\0"])
    def test_pieces_have_the_maximum_size(self, character: str) -> None:
        # Given a line of several times the limit, in frames like an engine's
        data = (character * 100_000).encode()
        frames = [out(data[at : at + 16_384]) for at in range(0, len(data), 16_384)]
        # When it is read
        pieces = texts(read([*frames, out(b"\n")]).lines)
        # I expect nothing lost, and pieces that each fill an event
        shown = character.replace("\0", "\ufffd")
        assert "".join(pieces) == shown * 100_000
        assert all(as_json([piece]) <= MAX_EVENT_BYTES for piece in pieces)
        assert all(as_json([piece + shown]) > MAX_EVENT_BYTES for piece in pieces[:-1])

    def test_a_line_that_just_fits_is_one_line(self) -> None:
        whole = "a" * (MAX_EVENT_BYTES - 4)
        assert texts(read([out(whole.encode()), out(b"\nb\n")]).lines) == [whole, "b"]

    def test_memory_for_an_unfinished_line_is_bounded(self) -> None:
        # Given a stream that never ends a line, of characters that never end either
        splitter = LineSplitter()
        for _ in range(64):
            splitter.feed(alone(out(b"\xff\x01\xf0\x9f" * 4096)))
            # I expect that little is left when the pieces are taken
            assert len(splitter.take().cursor.stdout) <= MAX_EVENT_BYTES

    @given(frames=some_frames)
    def test_cuts_do_not_depend_on_frames(self, frames: list[Frame]) -> None:
        with small_limit():
            lines = read(frames).lines
        for stream in STREAMS:
            whole = b"".join(frame.data for frame in frames if frame.stream == stream)
            assert texts(lines, stream) == reference(whole, SMALL_LIMIT)


characters = st.text(st.sampled_from('\n\r\t" \\aé漢😀\x1b'), max_size=60)


def cut(data: bytes, places: Iterable[int], stream: StreamName) -> list[Frame]:
    """The bytes as frames that end anywhere."""
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [Frame(stream, "t", data[start:end]) for start, end in pairwise(bounds)]


class TestEndings:
    def test_a_line_with_its_line_feed_and_one_without(self) -> None:
        lines = read([out(b"a\nb")]).lines
        assert [line.ending for line in lines] == [Ending.LINE_FEED, Ending.NOTHING]

    def test_a_piece_is_marked_as_partial(self) -> None:
        # Given a line that is too long for one event, and one that just fits
        lines = read([out(b"a" * (2 * MAX_EVENT_BYTES) + b"\n" + b"b" * (MAX_EVENT_BYTES - 4) + b"\n")]).lines
        # I expect all pieces but the last to say so
        assert [line.ending for line in lines] == [Ending.PARTIAL, Ending.PARTIAL, Ending.LINE_FEED, Ending.LINE_FEED]

    def test_the_last_piece_of_a_log_without_a_line_feed(self) -> None:
        lines = read([out(b"a" * (MAX_EVENT_BYTES + 1))]).lines
        assert [line.ending for line in lines] == [Ending.PARTIAL, Ending.NOTHING]

    def test_pieces_are_continued_in_their_own_stream(self) -> None:
        # Given two streams that print long lines in turn
        frames = [Frame(stream, "t", stream.encode() * 1000) for _ in range(20) for stream in STREAMS]
        # I expect both to be whole
        lines = read(frames).lines
        assert {stream: printed(lines, stream) for stream in STREAMS} == {stream: stream * 20_000 for stream in STREAMS}

    @given(text=characters, places=st.lists(st.integers(0, 200)), stops=st.sets(st.integers(0, 30)))
    def test_printed_text_can_be_restored(self, text: str, places: list[int], stops: set[int]) -> None:
        # Given any UTF-8 text in frames that are cut anywhere, and readers that stop and start again anywhere
        with small_limit():
            lines: list[Line] = []
            splitter = LineSplitter()
            for number, frame in enumerate(cut(text.encode(), places, "stderr")):
                if number in stops:
                    batch = splitter.take()
                    lines += batch.lines
                    splitter = LineSplitter(batch.cursor)
                splitter.feed(alone(frame))
            splitter.finish()
            lines += splitter.take().lines
        # I expect exactly that text
        assert printed(lines, "stderr") == text

    @given(frames=some_frames)
    def test_only_invalid_bytes_are_changed(self, frames: list[Frame]) -> None:
        with small_limit():
            lines = read(frames).lines
        for stream in STREAMS:
            whole = b"".join(frame.data for frame in frames if frame.stream == stream)
            assert printed(lines, stream) == whole.decode(errors="replace").replace("\0", "\ufffd")
            # and a piece that says that it goes on does
            endings = [line.ending for line in lines if line.stream == stream]
            assert endings[-1:] != [Ending.PARTIAL]
            assert Ending.NOTHING not in endings[:-1]


class TestCursor:
    @given(frames=some_frames, stops=st.sets(st.integers(0, 12)))
    def test_resuming_from_any_cursor_gives_the_same_lines(self, frames: list[Frame], stops: set[int]) -> None:
        with small_limit():
            expected = read(frames).lines
            # Given a reader that crashes right after each of some commits
            lines: list[Line] = []
            splitter = LineSplitter()
            for number, frame in enumerate(frames):
                if number in stops:
                    batch = splitter.take()
                    lines += batch.lines
                    # When the next one starts from what was committed
                    assert batch.cursor.frames == number
                    splitter = LineSplitter(batch.cursor)
                splitter.feed(alone(frame))
            batch = splitter.take()
            lines += batch.lines
            lines += read([], batch.cursor).lines
        # I expect the very same lines, each once, with the same times
        for stream in STREAMS:
            assert [line for line in lines if line.stream == stream] == [line for line in expected if line.stream == stream]

    def test_a_missing_time_changes_only_that_time(self) -> None:
        lines = read([out(b"b\n", "t2")], Cursor(frames=1, stdout=b"a")).lines
        assert lines == (Line("stdout", "t2", "ab"),)

    def test_nothing_is_left_after_the_end(self) -> None:
        # Given a log whose end was committed
        cursor = read([out(b"a\nb"), err(b"\xe2")]).cursor
        # When another reader starts again from there
        batch = read([], cursor)
        # I expect no line twice
        assert batch == Batch((), Cursor(frames=2), 0)


class TestBatches:
    def test_nothing_is_due_without_a_line(self) -> None:
        splitter = LineSplitter()
        splitter.feed(alone(out(b"unfinished")))
        assert not splitter.due(0.0)
        assert not splitter.due(1000.0)

    def test_a_line_is_due_a_quarter_second_after_it_was_seen(self) -> None:
        splitter = LineSplitter()
        splitter.feed(alone(out(b"a\n")))
        assert not splitter.due(10.0)
        splitter.feed(alone(out(b"b\n")))
        assert not splitter.due(10.2)
        assert splitter.due(10.25)

    def test_taking_a_batch_restarts_the_quarter_second(self) -> None:
        splitter = LineSplitter()
        splitter.feed(alone(out(b"a\n")))
        assert not splitter.due(10.0)
        splitter.take()
        splitter.feed(alone(out(b"b\n")))
        assert not splitter.due(11.0)
        assert splitter.due(11.25)

    def test_a_full_batch_is_due_at_once(self) -> None:
        splitter = LineSplitter()
        splitter.feed(alone(out(b"a" * 1000 + b"\n")))
        assert not splitter.due(0.0)
        splitter.feed(alone(out((b"a" * 1000 + b"\n") * (MAX_BATCH_BYTES // 1000))))
        assert splitter.due(0.0)

    def test_a_batch_knows_its_size(self) -> None:
        batch = read([out('a\n"\né\n'.encode()), err(b"\x1b\n")])
        assert batch.encoded_size == as_json([line.text for line in batch.lines])

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
    def test_sizes_add_up_to_the_size_of_the_array(self, some_texts: list[str]) -> None:
        assert encoded_size(some_texts) == as_json(some_texts)
        assert sum(encoded_size([text]) for text in some_texts) == as_json(some_texts)


class TestGroups:
    def test_streams_that_alternate_make_one_group_each(self) -> None:
        lines = [Line(stream, "t", f"{number}") for number in range(3) for stream in STREAMS]
        assert [some.lines for some in group(lines)] == [lines[0::2], lines[1::2]]

    def test_no_lines_make_no_group(self) -> None:
        assert group([]) == []

    @given(
        st.lists(
            st.builds(
                Line,
                stream=st.sampled_from(STREAMS),
                time=st.just("t"),
                text=st.sampled_from(["", "a", "é" * 9000, '"' * 24_000]),
                ending=st.sampled_from(Ending),
            ),
            max_size=30,
        )
    )
    def test_groups_fit_into_events_and_lose_nothing(self, lines: list[Line]) -> None:
        groups = group(lines)
        assert all(as_json([line.text for line in some.lines]) <= MAX_EVENT_BYTES for some in groups)
        assert all(json.loads(some.texts) == [line.text for line in some.lines] for some in groups)
        assert all(len({line.stream for line in some.lines}) == 1 for some in groups)
        for stream in STREAMS:
            assert [line for some in groups for line in some.lines if line.stream == stream] == [
                line for line in lines if line.stream == stream
            ]

    def test_a_piece_of_the_maximum_size_is_a_group(self) -> None:
        lines = read([out(b"a" * (2 * MAX_EVENT_BYTES) + b"\nb\n")]).lines
        assert [len(some) for some in group(lines)] == [1, 1, 2]
