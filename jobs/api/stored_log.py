"""Reads stored logs, a few chunks at a time.

A chunk holds consecutive lines, which are numbered from 1: a line is in the last chunk that starts at or before its number.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from jobs.log_lines import Ending
from jobs.models import Job, LogChunk

_BATCH_CHUNKS = 8  # the most that are read together
_SHORT_LENGTH = 64 * 1024  # characters; if a batch of chunks has fewer, the next one may have more chunks
_ENDS_LINE = (Ending.LINE_FEED, Ending.MARKER)


@dataclass(frozen=True, slots=True)
class Log:
    """The state of a log. It is read before the lines: if the log had ended, there are no others."""

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
    read_to: int  # number of the last line that was read, shown or not; the next page follows it
    complete: bool  # the log had ended, and the page reaches its end


def find_log(**job: str | UUID) -> Log | None:
    """Return the present state of the log of a job, given by `namespace` and `id` or by `uuid`; None if there is no such job."""
    row = Job.objects.filter(**job).values_list("uuid", "log_next", "exited_at").first()
    return None if row is None else Log(row[0], row[1] - 1, row[2] is not None)


def find_logs(jobs: Collection[UUID]) -> dict[UUID, Log]:
    """Return the present state of the logs of these jobs, without those that do not exist."""
    rows = Job.objects.filter(uuid__in=jobs).values_list("uuid", "log_next", "exited_at")
    return {uuid: Log(uuid, log_next - 1, exited_at is not None) for uuid, log_next, exited_at in rows}


def read_page(log: Log, *, after: int, limit: int, length: int, stream: str | None) -> LogPage:
    """Return at most `limit` lines that follow the number `after`, optionally of one stream.

    There are fewer if their text together is longer than `length`, but at least one.
    """
    lines: list[StoredLine] = []
    size, read_to = 0, after
    chunks = _chunks(log, after) if after < log.end else ()
    for line in (line for chunk in chunks for line in _lines_of(chunk, after)):
        taken = stream is None or line.stream == stream
        if taken and lines and (len(lines) == limit or size + len(line.text) > length):
            return LogPage(lines, read_to, complete=False)
        read_to = line.number
        if taken:
            lines.append(line)
            size += len(line.text)
    return LogPage(lines, read_to, complete=log.ended)


def read_before(log: Log, *, before: int, limit: int, length: int) -> list[StoredLine]:
    """Return at most `limit` lines that precede the number `before`, in order: those nearest to it.

    They have at most `length` characters together; a single line may have more.
    """
    lines: list[StoredLine] = []
    for chunk in _chunks_backwards(replace(log, end=min(log.end, before - 1))):
        for line in reversed(list(_lines_of(chunk, 0))):
            if line.number >= before or line.number > log.end:
                continue
            length -= len(line.text)
            if lines and (len(lines) == limit or length < 0):
                return lines[::-1]
            lines.append(line)
    return lines[::-1]


def read_text(log: Log, *, after: int, limit: int | None, stream: str | None) -> Iterator[str]:
    """Yield the text of at most `limit` lines, a chunk at a time. A marker starts on a new line."""
    at_line_start = True
    for chunk in _chunks(log, after):
        count, text = _text_of(chunk, after, limit, stream, at_line_start)
        del chunk  # its objects take ten times the memory of the text, which a slow client reads for a long time
        if text:
            at_line_start = text.endswith("\n")
            yield text
        if limit is not None:
            limit -= count
            if limit == 0:
                return


def _text_of(chunk: LogChunk, after: int, limit: int | None, stream: str | None, at_line_start: bool) -> tuple[int, str]:
    """Return the number of lines of the chunk to show, at most `limit`, and their text."""
    if chunk.unended:
        lines = [line for line in _lines_of(chunk, after) if stream is None or line.stream == stream][:limit]
        return len(lines), _joined(lines, at_line_start)
    rows = enumerate(chunk.lines, chunk.first)  # the usual case, three times as fast
    texts = [text for number, (of, _, text) in rows if number > after and (stream is None or of == stream)][:limit]
    return len(texts), "".join([f"{text}\n" for text in texts])


def _joined(lines: list[StoredLine], at_line_start: bool) -> str:
    """Join lines, some of which have no line feed. `at_line_start`: the text before them ended with one."""
    parts: list[str] = []
    for line in lines:
        if line.ending == Ending.MARKER and not at_line_start:
            parts.append("\n")
        at_line_start = line.ending in _ENDS_LINE
        parts.append(line.text + "\n" if at_line_start else line.text)
    return "".join(parts)


def before_tail(log: Log, *, count: int, stream: str | None) -> int:
    """Return the number of the line before the last `count` lines, optionally of one stream; 0 if there are fewer."""
    if stream is None or count == 0:
        return max(0, log.end - count)
    for chunk in _chunks_backwards(log):
        for line in reversed(list(_lines_of(chunk, 0))):
            if line.number <= log.end and line.stream == stream:
                count -= 1
                if count == 0:
                    return line.number - 1
    return 0


def _lines_of(chunk: LogChunk, after: int) -> Iterator[StoredLine]:
    line_feed = Ending.LINE_FEED
    unended = {chunk.first + index: Ending(ending) for index, ending in chunk.unended or ()}
    for number, (stream, time, text) in enumerate(chunk.lines, chunk.first):
        if number > after:
            yield StoredLine(number, stream, time, text, unended.get(number, line_feed))


def _chunks(log: Log, after: int) -> Iterator[LogChunk]:
    """Yield the chunks with lines after that number, first to last; read several at a time if they are short."""
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
            yield batch.pop()  # keeps no chunk that the caller has finished with
        if is_last:
            return


def _chunks_backwards(log: Log) -> Iterator[LogChunk]:
    """Yield the chunks of the log, last to first."""
    chunks = LogChunk.objects.filter(job=log.job).order_by("-first")
    end = log.end
    while batch := list(chunks.filter(first__lte=end)[:_BATCH_CHUNKS]):
        yield from batch
        end = batch[-1].first - 1
