"""The query parameters and pages of the API of jobs."""

from functools import partial
from typing import Any

from callbacks.models import Event
from jobs.api import job_list, limits
from jobs.states import State, Stream
from orchestrator_site.base.http.fields import Choice, Integer, Number, Text, Time
from orchestrator_site.base.http.openapi import NamespaceQuery
from orchestrator_site.base.http.pagination import MAX_NUMBER, PageQuery, cursor

_META = "meta."
_EXCLUSIVE = "A time in RFC 3339 with an offset; exclusive, to the millisecond."
_MAX_LINES = (
    f"The maximum number of lines; by default all in text, {limits.LOG_LINES_DEFAULT} in JSON and in each server-sent event. "
    "A page or event of long lines has fewer."
)
Wait = partial(Number, 0, limits.WAIT_SECONDS, default=0, schema={"multipleOf": 0.001})  # seconds


class JobListQuery(NamespaceQuery, PageQuery):
    """The jobs to list; names that start with `meta.` select by a value of `meta`."""

    cursor = cursor(job_list.decode_cursor)
    status = Choice(State.values, required=False, help_text="Only jobs with this status.")
    image = Text(required=False, help_text="Only jobs with exactly this image.")
    node = Text(required=False, help_text="Only jobs on the node with this name.")
    createdAfter = Time(source="created_after", required=False, help_text=_EXCLUSIVE)
    createdBefore = Time(source="created_before", required=False, help_text=_EXCLUSIVE)

    def to_internal_value(self, data: dict[str, str]) -> dict[str, Any]:
        meta = {name.removeprefix(_META): text for name, text in data.items() if name.startswith(_META)}
        others = {name: text for name, text in data.items() if not name.startswith(_META)}
        return super().to_internal_value(others) | {"meta": meta}


class WaitQuery(NamespaceQuery):
    """The time to wait for a job."""

    wait = Wait(help_text="Respond when the job's status is final, or after this many seconds.")


class LogQuery(NamespaceQuery):
    """The lines of a log to read."""

    after = Integer(0, MAX_NUMBER, default=0, help_text="Only lines after this `seq`.")
    limit = Integer(1, limits.LOG_LINES_MAX, required=False, help_text=_MAX_LINES)
    stream = Choice(Stream.values, required=False, help_text="Only lines of this stream.")
    tail = Integer(0, limits.LOG_LINES_MAX, required=False, help_text="Start at most this many lines before the end of the log.")
    wait = Wait(help_text="Respond as soon as there is a line or the log has ended, or after this many seconds. Not for events.")


class EventListQuery(NamespaceQuery, PageQuery):
    """The events of a job to list."""

    state = Choice(Event.State.values, required=False, help_text="Only events in this state.")
