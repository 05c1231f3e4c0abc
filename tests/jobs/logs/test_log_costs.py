"""What a log costs: statements and events are counted for each MiB, and calls for each block of lines."""

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from callbacks.models import Event
from jobs.engine.answer_stream import ByteStream
from jobs.engine.docker import log_frames
from jobs.engine.protocol import Frames
from jobs.log_lines import LineSplitter
from jobs.logs.rotation_detector import RotationDetector
from jobs.models import LogChunk
from tests.jobs.logs.log_steps import decide, log_writer, started

pytestmark = pytest.mark.django_db(transaction=True)

MEBIBYTE: Final = 1024**2
LINE: Final = b"x" * 99 + b"\n"
TIME: Final = "2026-01-01T00:00:00.000000000Z"
BLOCK: Final = 300  # lines that come together: what Docker has sent while the last ones were processed

# In a transaction with a commit. Its other statements begin and end it.
STATEMENTS: Final = {
    "UPDATE jobs_job": 2,  # the cursor, if the job is still ours, which locks the row; what was stored and dropped of the log
    "SELECT jobs_job": 0,
    "INSERT jobs_logchunk": 1,
    "SELECT callbacks_event": 1,  # how many are undelivered
    "SELECT callbacks_subscription": 0,
    "INSERT callbacks_event": 1,  # all of the commit
    "UPDATE callbacks_subscription": 1,  # takes their numbers, and locks it
}
PREPARED: Final = "UPDATE callbacks_subscription"  # is the only statement that is prepared: Django does not know their texts
TRANSACTIONS_PER_MEBIBYTE: Final = 1.5  # each has at least 720 KiB as JSON
EVENTS_PER_MEBIBYTE: Final = 24  # each of 48 KiB as JSON, except the last one of each transaction


def lines(mebibytes: int) -> Iterator[Frames]:
    for _ in range(mebibytes * MEBIBYTE // (BLOCK * len(LINE))):
        yield Frames("stdout", [TIME] * BLOCK, [LINE] * BLOCK)


def endless_line(mebibytes: int) -> Iterator[Frames]:
    for _ in range(mebibytes * 16):
        yield Frames("stdout", [TIME] * 4, [b"\x01" * 16 * 1024] * 4)


def test_statements_and_events_of_a_log_printed_at_full_speed() -> None:
    # Given a job whose callback receives its log
    writer = log_writer(started())

    # When 4 MiB of lines come as fast as they can be stored
    with CaptureQueriesContext(connection) as queries:
        for frames in lines(4):
            writer.write(frames)
    statements = [(query["sql"] or PREPARED).replace('"', "") for query in queries]

    # I expect few transactions, and no more statements in each than there are reasons for
    transactions = sum(statement.startswith("BEGIN") for statement in statements)
    assert 0 < transactions <= 4 * TRANSACTIONS_PER_MEBIBYTE
    for name, most in STATEMENTS.items():
        verb, table = name.split()
        seen = [statement for statement in statements if statement.startswith(verb) and table in statement.split("(")[0]]
        assert len(seen) <= most * transactions, name
    assert len(statements) <= (sum(STATEMENTS.values()) + 2) * transactions
    assert Event.objects.filter(type="orchestrator.job.log").count() <= 4 * EVENTS_PER_MEBIBYTE
    assert LogChunk.objects.count() <= 2 * transactions


@pytest.mark.parametrize("line", [b"x\n", b"x" * 999 + b"\n", b"\xff" * 10_000 + b"\n"])
def test_rows_of_a_log_are_small(line: bytes) -> None:
    """Each client that reads slowly keeps one in memory."""
    # Given a log printed at full speed
    writer = log_writer(started(), log_limit=MEBIBYTE // 2)
    for _ in range(MEBIBYTE // 2 // (BLOCK * len(line)) + 1):
        writer.write(Frames("stdout", [TIME] * BLOCK, [line] * BLOCK))
    writer.finish()

    # I expect its rows to have at most 5,000 lines and 384 KiB, and no line to be lost between them
    chunks = list(LogChunk.objects.all())
    assert len(chunks) > 1
    assert all(chunk.count <= 5000 for chunk in chunks)
    assert all(sum(len(text.encode()) for _, _, text in chunk.lines) <= 384 * 1024 for chunk in chunks)
    assert [chunk.first for chunk in chunks] == [1, *(chunk.first + chunk.count for chunk in chunks[:-1])]
    assert all(len(chunk.lines) == chunk.count for chunk in chunks)


@pytest.mark.parametrize("log", [lines, endless_line])
def test_memory_does_not_grow_with_the_log(log: Callable[[int], Iterator[Frames]]) -> None:
    # Given an ended job, so that no more than 200 events are published
    claim = started()
    decide(claim)
    writer = log_writer(claim, log_limit=MEBIBYTE)
    writer.backlog.may_drop = True

    # When much more is read than is stored
    peaks = []
    tracemalloc.start()
    try:
        for mebibytes in (1, 5):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            for frames in log(mebibytes):
                writer.write(frames)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()

    # I expect
    assert peaks[1] < 16 * MEBIBYTE
    assert peaks[1] < peaks[0] * 1.5, peaks


def calls(function: Callable[[], Any]) -> int:
    """Return how often Python calls something written in Python in it."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    gc.disable()  # which may call something, too
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


class Body:
    """An answer that is received at once."""

    def __init__(self, data: bytes) -> None:
        self._data = [data]

    def read(self) -> bytes:
        return self._data.pop() if self._data else b""


def test_a_block_of_lines_takes_as_many_calls_as_a_line() -> None:
    """A call for each line would be a tenth of what a line costs in all."""

    def processed(count: int) -> None:
        payload = TIME.encode() + b" " + LINE
        log = (bytes([1, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload) * count
        detector = RotationDetector({"stdout": TIME, "stderr": TIME}, engine_bytes=0, first_file_bytes=MEBIBYTE)
        splitter = LineSplitter()
        for frames in log_frames.read_frames(cast("ByteStream", Body(log)), skip=0, max_pause=None):
            assert frames is not None
            assert detector.accept_all(frames)
            splitter.feed(frames)
        assert len(splitter.take().lines) == count

    assert calls(lambda: processed(1000)) == calls(lambda: processed(1))
