"""A log is read to its end, each line once, however often reading is interrupted."""

import io
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.intervals import ClientIntervals
from orchestrator_site.client.errors import ClientError
from orchestrator_site.client.interrupts import Interrupted, Interrupts
from orchestrator_site.client.log_output import Piece, RawLog
from orchestrator_site.client.log_reader import LogReader
from orchestrator_site.client.service.api import LogLine, LogPage, Service

pytestmark = pytest.mark.stateless

INTERVALS = ClientIntervals(early_answer=0.0)


class StoredLog:
    """A service with a log that grows: at each request, the next of `steps` says what happens."""

    def __init__(self, texts: list[str], steps: list[str]) -> None:
        self.texts = texts
        self.steps = steps
        self.stored = 0
        self.burst = 1  # lines that come at a time
        self.waits: list[float] = []

    def not_the_service(self) -> ClientError:
        return ClientError("not Orchestrator's")

    def log_page(self, job_id: str, *, wait: float, limit: int, after: int = 0, tail: int | None = None, **_: Any) -> LogPage:
        assert job_id == "hello"
        self.waits.append(wait)
        match self.steps.pop() if self.steps else "line":
            case "interrupt":
                raise Interrupted(signal.SIGINT)
            case "line":
                self.stored = min(self.stored + self.burst, len(self.texts))
        if tail is not None:
            after = max(after, self.stored - tail)
        numbers = range(after + 1, self.stored + 1)
        lines = [LogLine(number, "stdout", self.texts[number - 1], True, {}) for number in numbers]
        return LogPage(lines, self.stored, complete=self.stored == len(self.texts))

    def log_text(self, job_id: str, *, after: int, limit: int, stream: str) -> bytes:
        assert (job_id, limit, stream) == ("hello", 1, "stdout")
        return (self.texts[after] + "\n" * (after + 1 < len(self.texts))).encode()  # the last line has no line feed


def reader(log: StoredLog, output: io.BytesIO, interrupted: list[bool] | None = None, **options: Any) -> LogReader:
    """Return a reader. A signal interrupts the writing of pieces for which `interrupted` has `True`; they are written later."""

    def write(pieces: Sequence[Piece]) -> None:
        for stream, data in pieces:
            stream.write(data)
        if interrupted and interrupted.pop():
            raise Interrupted(signal.SIGINT)

    raw = RawLog(output, io.BytesIO(), write=write)
    return LogReader(cast(Service, log), "hello", raw, Interrupts(), intervals=INTERVALS, **options)


@given(
    texts=st.lists(st.text("ab"), min_size=1),
    steps=st.lists(st.sampled_from(["line", "nothing", "interrupt"]), max_size=30),
    interrupted=st.lists(st.booleans(), max_size=30),
)
def test_each_line_is_written_once_whatever_interrupts(texts: list[str], steps: list[str], interrupted: list[bool]) -> None:
    output = io.BytesIO()
    log = reader(StoredLog(texts, steps), output, interrupted)

    while True:
        try:
            log.follow()
            break
        except Interrupted:
            continue

    assert output.getvalue().decode() == "\n".join(texts)


def test_a_quiet_log_is_waited_for_as_long_as_the_service_waits() -> None:
    # Given a log with a line, after which nothing comes twice
    log = StoredLog(["a", "b"], ["nothing", "nothing", "line"])

    reader(log, io.BytesIO()).follow()

    # I expect a short wait for the line feed of the first line, and then long ones
    assert log.waits == [INTERVALS.waiting_look, INTERVALS.line_feed, INTERVALS.long_poll, INTERVALS.long_poll]


def test_a_proxy_that_ends_requests_after_half_a_minute_ends_none() -> None:
    assert ClientIntervals().long_poll <= 25.0


def test_while_a_job_waits_it_is_looked_at_often() -> None:
    log = StoredLog(["a"], ["nothing", "nothing"])

    reader(log, io.BytesIO()).follow(lambda: True)

    assert log.waits == [INTERVALS.waiting_look] * 3


def test_a_line_is_written_although_no_other_follows() -> None:
    # Given a job that prints a line, and then nothing for a while
    log, output = StoredLog(["a", "b"], ["nothing", "nothing", "line"]), io.BytesIO()
    written: list[bytes] = []

    reader(log, output).follow(lambda: bool(written.append(output.getvalue())))

    assert written == [b"a\n"] * 2


def test_what_is_stored_is_read_and_no_more() -> None:
    # Given a job that prints a line whenever it is asked
    log, output = StoredLog(["a", "b", "c", "d", "e"], []), io.BytesIO()

    # When the stored log is read
    reader(log, output).read_stored()

    # I expect the lines up to the end that it had at first
    assert output.getvalue() == b"a\nb\n"


def test_the_last_lines_are_read_once() -> None:
    # Given a log of which the last line is asked for, and that then grows by more than a line at a time
    log, output = StoredLog(["a", "b", "c", "d"], ["line", "nothing"]), io.BytesIO()
    log.stored, log.burst = 2, 2

    reader(log, output, tail=1).follow()

    assert output.getvalue() == b"b\nc\nd"


class StuckLog(StoredLog):
    """A service whose cursor does not move."""

    def log_page(self, job_id: str, **query: Any) -> LogPage:
        return replace(super().log_page(job_id, **query), next=0, complete=False)


def test_a_service_that_sends_the_same_lines_for_ever_is_an_error() -> None:
    # Given a service that goes on at the same line
    log = StuckLog(["a", "b"], [])
    log.stored = 2

    # When its log is read, I expect an error
    with pytest.raises(ClientError, match="not Orchestrator's"):
        reader(log, io.BytesIO()).follow()


def test_a_log_that_has_become_shorter_is_read_no_further() -> None:
    # Given a job that was deleted while its log was read, and another one with its id, which has printed less
    log = StoredLog(["a"], [])
    end, first, nothing = LogPage([], 3, False), LogPage([LogLine(1, "stdout", "a", True, {})], 1, False), LogPage([], 1, False)
    pages = iter([end, first, nothing])
    log.log_page = lambda *_, **__: next(pages)  # type: ignore[method-assign]

    # When the lines that are stored now are read, I expect an end
    reader(log, io.BytesIO()).read_stored()
    assert list(pages) == []
