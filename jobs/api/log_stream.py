"""The log of a job as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

An event has some lines and, as its `id`, the number of the last line that was read for it: a client that sends this id as
`Last-Event-ID` continues there. The last event has an id of its own, so that a client that has it can be told not to come back.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from jobs.api import limits, stored_log
from jobs.api.job_answers import LogPage
from jobs.api.log_watch import Follower, log_watch
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


class LogEvents:
    """The lines of a log that follow the number `after`, optionally of one stream, as they are stored, until the log has ended.

    Between lines the answer pauses; if it cannot, it ends, and the client comes back for the rest. No database connection is
    held meanwhile.
    """

    def __init__(
        self,
        log: Log,
        *,
        after: int,
        limit: int,
        stream: str | None,
        pauses: Pauses | None,
        intervals: WebIntervals = WebIntervals(),
    ) -> None:
        self._log = log  # as it was last read
        self._after = after
        self._known = after  # to the client, by the id of what it was sent last
        self._limit = limit
        self._stream = stream
        self._pauses = pauses
        self._intervals = intervals
        self._last_sent = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        yield f"retry: {round(self._intervals.retry_stream * 1000)}\n\n".encode()
        while not stopping.is_set():
            page = self._read()
            if page is not None and page.lines:
                yield self._event(page)
            if page is not None and page.complete:
                yield _encode(replace(page, lines=[]), f"{self._after}{_END}", name="end")
                return
            if page is not None and page.lines and self._after < self._log.end:
                continue
            known = self._after if page is None else max(self._after, self._log.end)  # what was not read is still news
            del page  # its lines take memory, and the pause may be long
            if self._pauses is None:
                return
            yield from self._wait(self._pauses, known)

    def _read(self) -> stored_log.LogPage | None:
        """Return the next lines; None if the database does not answer, which may pass."""
        try:
            self._log = stored_log.find_log(uuid=self._log.job) or replace(self._log, ended=True)  # if the job was deleted
            page = stored_log.read_page(
                self._log, after=self._after, limit=self._limit, stream=self._stream, length=limits.LOG_EVENT_LENGTH
            )
        except DATABASE_UNAVAILABLE:
            return None
        finally:
            release_connection()
        self._after = page.read_to
        return page

    def _wait(self, pauses: Pauses, known: int) -> Iterator[bytes]:
        """Pause until there are lines after the number `known`. Yield comments meanwhile, which keep the connection open."""
        has_news = False
        while not has_news:
            due = self._last_sent + self._intervals.stream_comment
            part = self._comment() if time.monotonic() >= due else b""
            deadline = self._last_sent + self._intervals.stream_comment
            follower = Follower(pause=pauses.take(), job=self._log.job, position=known, deadline=deadline)
            log_watch.add(follower)
            yield part
            has_news = follower.has_news

    def _event(self, page: stored_log.LogPage) -> bytes:
        self._known, self._last_sent = self._after, time.monotonic()
        return _encode(page, str(self._after))

    def _comment(self) -> bytes:
        """Return a comment. An id without data tells the client how far the log has been read, if that is news."""
        number = f"id: {self._after}\n" if self._after > self._known else ""
        self._known, self._last_sent = self._after, time.monotonic()
        return f": still here\n{number}\n".encode()


def _encode(page: stored_log.LogPage, event_id: str, *, name: str = "") -> bytes:
    data = json.dumps(LogPage.show(page), ensure_ascii=False)  # on one line: JSON has no line feed in a string
    event = f"event: {name}\n" if name else ""
    return f"{event}id: {event_id}\ndata: {data}\n\n".encode()
