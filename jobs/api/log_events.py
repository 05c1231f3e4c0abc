"""The events of a stream of a log (`jobs.api.log_stream`), read from the database and encoded.

Clients that follow the same log mostly wait at the same line. Then the next event is the same for all of them, and is read once.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from jobs.api import limits, stored_log
from jobs.api.job_answers import LogPage
from jobs.api.stored_log import Log

END: Final = "-end"  # in the id of the last event
_SHARED: Final = 8  # events that are kept for others, of some 100 KB at most


@dataclass(frozen=True, slots=True)
class LogEvent:
    """Lines of a log as an event; without lines it is empty."""

    text: bytes
    read_to: int  # number of the last line that was read for it
    complete: bool  # the log had ended, and the event reaches its end


@lru_cache(maxsize=_SHARED)
def read_event(log: Log, after: int, limit: int, stream: str | None) -> LogEvent:
    """Return the lines that follow the number `after`, optionally of one stream; at most `limit`, and as many as an event has."""
    page = stored_log.read_page(log, after=after, limit=limit, stream=stream, length=limits.LOG_EVENT_LENGTH)
    return LogEvent(_encode(page, str(page.read_to)) if page.lines else b"", page.read_to, page.complete)


def forget_events() -> None:
    """Free the memory of the events that were read."""
    read_event.cache_clear()


def last_event(number: int) -> bytes:
    """Return the event after the last line. Its id is its own, so that a client that has it can be told not to come back."""
    return _encode(stored_log.LogPage([], number, complete=True), f"{number}{END}", name="end")


def _encode(page: stored_log.LogPage, event_id: str, *, name: str = "") -> bytes:
    data = json.dumps(LogPage.show(page), ensure_ascii=False)  # on one line: JSON has no line feed in a string
    event = f"event: {name}\n" if name else ""
    return f"{event}id: {event_id}\ndata: {data}\n\n".encode()
