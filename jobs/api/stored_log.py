"""Reads stored logs. Memory holds a few chunks at a time, however long the log is.

A chunk holds consecutive lines, numbered from 1, so that a line is found by the chunk that begins at or before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from jobs.api import limits
from jobs.log_lines import Ending
from jobs.models import Job, LogChunk

_BATCH_CHUNKS = 8  # read together at most
_SHORT_LENGTH = 64 * 1024  # characters of text in a batch; if it has fewer, the next one may have more chunks
_ENDS_LINE = (Ending.LINE_FEED, Ending.MARKER)


@dataclass(frozen=True, slots=True)
class Log:
    """Where a log stands. Read before its lines: one that had ended then has no others."""

    job: UUID
    end: int  # number of the last stored line
    ended: bool


@dataclass(frozen=True, slots=True)
class StoredLine:
    number: int
    stream: str
    time: str
    text: str
    ending: Ending


@dataclass(frozen=True, slots=True)
class LogPage:
    lines: list[StoredLine]
    read_to: int  # number of the last line that was looked at: where the next page goes on
    at_end: bool  # nothing more was stored when it was read


def find_log(job_id: str) -> Log | None:
    row = Job.objects.filter(id=job_id).values_list("uuid", "log_next", "exited_at").first()
    return None if row is None else Log(row[0], row[1] - 1, row[2] is not None)


def find_again(log: Log) -> Log:
    """Where it stands now; one whose job is gone has ended."""
    row = Job.objects.filter(uuid=log.job).values_list("log_next", "exited_at").first()
    return replace(log, ended=True) if row is None else Log(log.job, row[0] - 1, row[1] is not None)


def read_page(log: Log, *, after: int, limit: int, stream: str | None) -> LogPage:
    """At most `limit` lines, of one stream where that is given; fewer where they are long."""
    lines: list[StoredLine] = []
    size, read_to = 0, after
    for line in _lines(log, after):
        taken = stream is None or line.stream == stream
        if taken and lines and (len(lines) == limit or size + len(line.text) > limits.LOG_PAGE_LENGTH):
            return LogPage(lines, read_to, at_end=False)
        read_to = line.number
        if taken:
            lines.append(line)
            size += len(line.text)
    return LogPage(lines, read_to, at_end=True)


def read_text(log: Log, *, after: int, limit: int | None, stream: str | None) -> Iterator[str]:
    """Yield what was printed, a chunk at a time, of at most `limit` lines. A marker begins on a line of its own."""
    at_line_start = True
    for chunk in _chunks(log, after):
        count, text = _text_of(chunk, after, limit, stream, at_line_start)
        del chunk  # its objects take ten times the memory of its text, for as long as the client takes to read that
        if text:
            at_line_start = text.endswith("\n")
            yield text
        if limit is not None:
            limit -= count
            if limit == 0:
                return


def _text_of(chunk: LogChunk, after: int, limit: int | None, stream: str | None, at_line_start: bool) -> tuple[int, str]:
    """Return how many lines of the chunk there are to show, at most `limit`, and what was printed in them."""
    if chunk.unended:
        lines = [line for line in _lines_of(chunk, after) if stream is None or line.stream == stream][:limit]
        return len(lines), _joined(lines, at_line_start)
    rows = enumerate(chunk.lines, chunk.first)  # as almost always: at three times the speed
    texts = [text for number, (of, _, text) in rows if number > after and (stream is None or of == stream)][:limit]
    return len(texts), "".join([f"{text}\n" for text in texts])


def _joined(lines: list[StoredLine], at_line_start: bool) -> str:
    """Join lines of which some end in no line feed. `at_line_start`: the text before them ended in one."""
    parts: list[str] = []
    for line in lines:
        if line.ending == Ending.MARKER and not at_line_start:
            parts.append("\n")
        at_line_start = line.ending in _ENDS_LINE
        parts.append(line.text + "\n" if at_line_start else line.text)
    return "".join(parts)


def before_tail(log: Log, *, count: int, stream: str | None) -> int:
    """The number after which there are the last `count` lines, of one stream where that is given; 0 where there are fewer."""
    if stream is None or count == 0:
        return max(0, log.end - count)
    for chunk in _chunks_backwards(log):
        for line in reversed(list(_lines_of(chunk, 0))):
            if line.number <= log.end and line.stream == stream:
                count -= 1
                if count == 0:
                    return line.number - 1
    return 0


def _lines(log: Log, after: int) -> Iterator[StoredLine]:
    if after < log.end:
        for chunk in _chunks(log, after):
            yield from _lines_of(chunk, after)


def _lines_of(chunk: LogChunk, after: int) -> Iterator[StoredLine]:
    line_feed = Ending.LINE_FEED
    unended = {chunk.first + index: Ending(ending) for index, ending in chunk.unended or ()}
    for number, (stream, time, text) in enumerate(chunk.lines, chunk.first):
        if number > after:
            yield StoredLine(number, stream, time, text, unended.get(number, line_feed))


def _chunks(log: Log, after: int) -> Iterator[LogChunk]:
    """Those with lines after that number, first to last; several at a time where they are short."""
    chunks = LogChunk.objects.filter(job=log.job)
    first = chunks.filter(first__lte=after + 1).order_by("-first").values_list("first", flat=True).first() or 0
    size = 1
    while batch := list(chunks.filter(first__gte=first).order_by("first")[:size]):
        first = batch[-1].first + 1
        is_last = len(batch) < size
        length = sum(len(text) for chunk in batch for _, _, text in chunk.lines)
        size = min(2 * size, _BATCH_CHUNKS) if length < _SHORT_LENGTH else 1
        batch.reverse()
        while batch:
            yield batch.pop()  # and keep none that the caller is done with
        if is_last:
            return


def _chunks_backwards(log: Log) -> Iterator[LogChunk]:
    """Those with lines up to where it stands, last to first."""
    chunks = LogChunk.objects.filter(job=log.job).order_by("-first")
    end = log.end
    while batch := list(chunks.filter(first__lte=end)[:_BATCH_CHUNKS]):
        yield from batch
        end = batch[-1].first - 1
