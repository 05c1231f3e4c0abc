"""The log is written byte for byte, whichever pages it comes in."""

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.client.interrupts import Interrupted, Interrupts
from orchestrator_site.client.log_output import InterruptibleWriter, JsonLog, Piece, RawLog
from orchestrator_site.client.service.api import LogLine

pytestmark = pytest.mark.stateless

STREAMS = ("stdout", "stderr")
TEXT = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=5)


def write(pieces: Sequence[Piece]) -> None:
    for stream, data in pieces:
        stream.write(data)


@st.composite
def printed_logs(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Return lines as stream, text and end: a line feed, `more` for a piece of a line, or nothing for the last of a stream."""
    lines = draw(st.lists(st.tuples(st.sampled_from(STREAMS), TEXT, st.sampled_from(["\n", "more"]))))
    ends = draw(st.lists(st.sampled_from(STREAMS), unique=True))
    return lines + [(stream, draw(TEXT.filter(bool)), "") for stream in ends]


def as_line(number: int, stream: str, text: str, end: str) -> LogLine:
    return LogLine(number, stream, text, end != "more", {"seq": number, "stream": stream, "text": text})


def exact_text(log: list[tuple[str, str, str]]) -> Callable[[LogLine], bytes]:
    """Return what the API answers if it is asked for the text of one line."""

    def text_of(line: LogLine) -> bytes:
        _, text, end = log[line.number - 1]
        return (text + ("\n" if end == "\n" else "")).encode()

    return text_of


@given(log=printed_logs(), data=st.data())
def test_both_streams_are_written_exactly(log: list[tuple[str, str, str]], data: st.DataObject) -> None:
    # Given a log in pages of any length, with pauses between them
    outputs = {stream: io.BytesIO() for stream in STREAMS}
    raw = RawLog(outputs["stdout"], outputs["stderr"], write=write)
    lines = [as_line(number, *line) for number, line in enumerate(log, 1)]

    # When they are written
    done = 0
    while done < len(lines):
        count = data.draw(st.integers(1, 4))
        raw.write(lines[done : done + count])
        done += count
        if data.draw(st.booleans()):
            raw.settle(exact_text(log))
    raw.settle(exact_text(log))

    # I expect the bytes that the job printed
    for stream in STREAMS:
        printed = "".join(text + end.replace("more", "") for of, text, end in log if of == stream)
        assert outputs[stream].getvalue() == printed.encode()


@given(log=printed_logs())
def test_lines_of_the_two_streams_keep_their_order(log: list[tuple[str, str, str]]) -> None:
    # Given a terminal, which shows both streams
    terminal = io.BytesIO()
    raw = RawLog(terminal, terminal, write=write)

    for number, line in enumerate(log, 1):
        raw.write([as_line(number, *line)])
    raw.settle(exact_text(log))

    assert terminal.getvalue() == "".join(text + end.replace("more", "") for _, text, end in log).encode()


def test_only_the_last_lines_are_held_back() -> None:
    # Given a page whose last two lines are those of different streams
    stdout, stderr = io.BytesIO(), io.BytesIO()
    raw = RawLog(stdout, stderr, write=write)
    raw.write([as_line(1, "stdout", "a", "\n"), as_line(2, "stdout", "b", "\n"), as_line(3, "stderr", "c", "\n")])

    # I expect the first line to be written at once, and the others as soon as nothing follows
    assert (stdout.getvalue(), stderr.getvalue()) == (b"a\n", b"")
    raw.settle(lambda line: f"{line.text}\n".encode())
    assert (stdout.getvalue(), stderr.getvalue()) == (b"a\nb\n", b"c\n")


def test_an_unknown_stream_is_not_written() -> None:
    stdout = io.BytesIO()
    raw = RawLog(stdout, stdout, write=write)

    raw.write([as_line(number, "other", "a", "\n") for number in (1, 2)])
    raw.settle(lambda line: line.text.encode())

    assert stdout.getvalue() == b""


def test_lines_stay_held_if_the_service_cannot_be_asked() -> None:
    # Given a line that may be the last one
    stdout = io.BytesIO()
    raw = RawLog(stdout, io.BytesIO(), write=write)
    raw.write([as_line(1, "stdout", "a", "")])

    # When a signal interrupts the question whether it has a line feed
    def interrupted(_: LogLine) -> bytes:
        raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        raw.settle(interrupted)

    # I expect it to be written the next time, once
    raw.settle(lambda _: b"a")
    assert stdout.getvalue() == b"a"


def test_lines_as_json_are_those_of_the_api() -> None:
    stdout = io.BytesIO()

    JsonLog(stdout, write=write).write([as_line(1, "stdout", "\x1b[31m", "\n")])

    assert json.loads(stdout.getvalue()) == {"seq": 1, "stream": "stdout", "text": "\x1b[31m"}
    assert stdout.getvalue().decode().rstrip("\n").isprintable()


def test_nothing_is_written_of_what_is_empty() -> None:
    # Given what a job's display is told before bytes are written
    told: list[bytes] = []
    writer = InterruptibleWriter(Interrupts(), before_write=lambda _, data: told.append(data))

    with open(os.devnull, "wb") as stream:
        JsonLog(stream, write=writer.write).write([])

    assert told == []


def test_a_signal_interrupts_a_write_to_a_reader_that_does_not_read() -> None:
    # Given a pipe that is full before all of a log is written
    data = bytes(range(256)) * 1024
    reading, writing = os.pipe()
    interrupts = Interrupts()
    started = threading.Event()

    def note(stream: BinaryIO, data: bytes) -> None:
        started.set()

    writer = InterruptibleWriter(interrupts, before_write=note)
    with open(reading, "rb") as reader, open(writing, "wb") as pipe:
        # When a signal comes while the write waits
        threading.Thread(target=lambda: (started.wait(), os.kill(os.getpid(), signal.SIGINT))).start()
        with interrupts.installed(), pytest.raises(Interrupted):
            writer.write([(pipe, data), (pipe, b"end")])

        # I expect that nothing is lost or repeated when writing goes on
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.append(reader.read()))
        thread.start()
        writer.write([(pipe, b"more")])
        pipe.close()
        thread.join()
    assert received == [data + b"endmore"]
