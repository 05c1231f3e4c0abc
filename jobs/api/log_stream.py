"""The log of a job as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

An event has some lines and, as its `id`, the number of the last line that was read for it: a client that sends this id as
`Last-Event-ID` continues there. The last event has an id of its own, so that a client that has it can be told not to come back.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from jobs.api import limits, stored_log
from jobs.api.job_answers import LogPage
from jobs.api.log_watch import log_watch
from jobs.api.stored_log import Log
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, release_connection
from orchestrator_site.base.http.api_errors import InvalidRequest
from orchestrator_site.base.http.pagination import MAX_NUMBER
from orchestrator_site.base.http.pauses import Pauses
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping

MEDIA_TYPE: Final = "text/event-stream"
LAST_EVENT_ID: Final = "Last-Event-ID"
EVENT_ID_PATTERN: Final = r"[0-9]{1,16}(-end)?"
_END: Final = "-end"
HEADERS: Final = {
    "Content-Type": MEDIA_TYPE,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has a buffer full
}


def read_last_event_id(text: str) -> tuple[int, bool] | None:
    """Return the line that the client has read last, and whether it has had the last event; None if it has had no event."""
    if not text:
        return None
    if not re.fullmatch(EVENT_ID_PATTERN, text) or (number := int(text.removesuffix(_END))) > MAX_NUMBER:
        raise InvalidRequest("is not the id of an event of this log", field=LAST_EVENT_ID)
    return number, text.endswith(_END)


def events(
    log: Log, *, after: int, limit: int, stream: str | None, pauses: Pauses | None, intervals: WebIntervals = WebIntervals()
) -> Iterator[bytes]:
    """Yield the lines that follow the number `after`, optionally of one stream, as they are stored, until the log has ended.

    No database connection is held at a `yield`. Between lines the answer pauses; where it cannot, it ends, and the client comes
    back for the rest.
    """
    yield f"retry: {round(intervals.retry_stream * 1000)}\n\n".encode()
    known, position, last_sent = after, after, time.monotonic()  # `known` to the client
    while not stopping.is_set():
        now, page = _read(log, after, limit, stream)
        if page is not None:
            after = page.read_to
            if page.lines:
                yield _event(page, known := after)
                last_sent = time.monotonic()
            if page.complete:
                yield _event(replace(page, lines=[]), f"{after}{_END}", name="end")
                return
            position = max(after, now.end)
            if page.lines and after < now.end:
                continue
            del page  # its lines take memory, and the pause may be long
        if pauses is None:
            return
        part = b""
        if time.monotonic() - last_sent >= intervals.stream_comment:
            part, known, last_sent = _comment(after if after > known else None), after, time.monotonic()
        deadline = last_sent + intervals.stream_comment
        log_watch.wait(pauses.take(), job=log.job, position=position, deadline=deadline)
        yield part


def _read(log: Log, after: int, limit: int, stream: str | None) -> tuple[Log, stored_log.LogPage | None]:
    """Return the state of the log and its next lines; no lines if the database does not answer, which may pass."""
    try:
        now = stored_log.find_log(uuid=log.job) or replace(log, ended=True)  # if the job was deleted
        length = limits.LOG_EVENT_LENGTH
        return now, stored_log.read_page(now, after=after, limit=limit, stream=stream, length=length)
    except DATABASE_UNAVAILABLE:
        return log, None
    finally:
        release_connection()


def _event(page: stored_log.LogPage, event_id: int | str, *, name: str = "") -> bytes:
    data: Any = json.dumps(LogPage.show(page), ensure_ascii=False)  # on one line: JSON has no line feed in a string
    event = f"event: {name}\n" if name else ""
    return f"{event}id: {event_id}\ndata: {data}\n\n".encode()


def _comment(event_id: int | None) -> bytes:
    """Return a comment, which keeps the connection open; an id without data tells how far the log has been read."""
    return b": still here\n\n" if event_id is None else f": still here\nid: {event_id}\n\n".encode()
