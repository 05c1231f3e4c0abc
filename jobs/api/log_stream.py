"""The log of a job as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

An event has some lines and, as its `id`, the number of the last line that was read for it: a client that sends this id as
`Last-Event-ID` continues there. The last event has an id of its own, so that a client that has it can be told not to come back.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from jobs.api.log_events import END, LogEvent, last_event, read_event
from jobs.api.log_watch import Follower, log_watch
from jobs.api.stored_log import Log
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, release_connection
from orchestrator_site.base.http.api_errors import InvalidRequest
from orchestrator_site.base.http.pauses import Pauses
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.stopping import stopping

MEDIA_TYPE: Final = "text/event-stream"
LAST_EVENT_ID: Final = "Last-Event-ID"
EVENT_ID_PATTERN: Final = r"[0-9]{1,16}(-end)?"
HEADERS: Final = {
    "Content-Type": MEDIA_TYPE,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has a buffer full
}


def read_last_event_id(text: str, log: Log) -> tuple[int, bool] | None:
    """Return the line that the client has read last, and whether it has had the last event; None if it has had no event.

    Raise `InvalidRequest` for an id that no event of this log can have had: that of another job, perhaps, which had the same id
    before it was deleted.
    """
    if not text:
        return None
    if re.fullmatch(EVENT_ID_PATTERN, text):
        number, has_ended = int(text.removesuffix(END)), text.endswith(END)
        if number <= log.end and (not has_ended or (log.ended and number == log.end)):
            return number, has_ended
    raise InvalidRequest("is not the id of an event of this log", field=LAST_EVENT_ID)


class LogEvents:
    """The lines of a log that follow the number `after`, optionally of one stream, as they are stored, until the log has ended.

    Between lines the answer pauses; if it cannot, it ends, and the client comes back for the rest. No database connection is
    held meanwhile. It also ends when the client is no longer allowed to read.
    """

    def __init__(
        self,
        log: Log,
        *,
        after: int,
        limit: int,
        stream: str | None,
        pauses: Pauses | None,
        is_allowed: Callable[[], bool],
        intervals: WebIntervals = WebIntervals(),
    ) -> None:
        self._log = log  # as it was last read
        self._after = after
        self._known = after  # to the client, by the id of what it was sent last
        self._limit = limit
        self._stream = stream
        self._pauses = pauses
        self._is_allowed = is_allowed
        self._intervals = intervals
        self._last_sent = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        yield f"retry: {round(self._intervals.retry_stream * 1000)}\n\n".encode()
        while self._goes_on:
            event = self._read()
            if event is not None:
                if event.text:
                    self._note_sent()
                    yield event.text
                if event.complete:
                    yield last_event(min(self._after, self._log.end))
                    return
                if event.text and self._after < self._log.end:
                    continue
            known = self._after if event is None else max(self._after, self._log.end)  # what was not read is still news
            del event  # it takes memory, and the pause may be long
            if self._pauses is None:
                return
            yield from self._wait(self._pauses, known)

    @property
    def _goes_on(self) -> bool:
        return not stopping.is_set() and self._is_allowed()

    def _read(self) -> LogEvent | None:
        """Return the next lines; None if the database does not answer, which may pass."""
        try:
            event = read_event(self._log, self._after, self._limit, self._stream)
        except DATABASE_UNAVAILABLE:
            return None
        finally:
            release_connection()
        self._after = event.read_to
        return event

    def _wait(self, pauses: Pauses, known: int) -> Iterator[bytes]:
        """Pause until there are lines after the number `known`. Yield comments meanwhile, which keep the connection open."""
        while self._goes_on:
            due = self._last_sent + self._intervals.stream_comment
            part = self._comment() if time.monotonic() >= due else b""
            deadline = self._last_sent + self._intervals.stream_comment
            follower = Follower(pause=pauses.take(), job=self._log.job, position=known, deadline=deadline)
            log_watch.add(follower)
            try:
                yield part
            finally:  # also if the client has gone
                follower.waits = False
            if follower.has_news:
                self._log = follower.log or replace(self._log, ended=True)  # the job may be deleted
                return

    def _comment(self) -> bytes:
        """Return a comment. An id without data tells the client how far the log has been read, if that is news."""
        number = f"id: {self._after}\n" if self._after > self._known else ""
        self._note_sent()
        return f": still here\n{number}\n".encode()

    def _note_sent(self) -> None:
        self._known, self._last_sent = self._after, time.monotonic()
