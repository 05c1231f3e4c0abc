"""The events of a stream with their attempts, a page at a time."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callbacks.models import Event

_BATCH: Final = 50
_PAGE_LENGTH: Final = 2 * 1024**2  # characters of answers and errors in one page


@dataclass(frozen=True, slots=True)
class Page:
    """Some events of a stream, in order."""

    events: list[Event]  # with their attempts, the oldest first
    next_after: int | None  # the sequence after which the next page begins; None: this is the last page


def page_of_events(stream: UUID, *, after: int, limit: int, state: str | None) -> Page:
    """Return events with a sequence higher than `after`: at most `limit`, and fewer if their answers are long.

    Args:
        stream: Whose events.
        after: 0 for the first page, then the `next_after` of the page before.
        limit: 1 or more.
        state: Only events in this state; None for all.
    """
    rows = Event.objects.filter(subscription__stream=stream).order_by("sequence").defer("body").prefetch_related("attempts")
    if state is not None:
        rows = rows.filter(state=state)
    events: list[Event] = []
    length = 0
    while True:
        batch = list(rows.filter(sequence__gt=after)[: min(_BATCH, limit + 1 - len(events))])
        for event in batch:
            length += sum(len(attempt.answer) + len(attempt.error) for attempt in event.attempts.all())
            if events and (len(events) == limit or length > _PAGE_LENGTH):
                return Page(events, after)
            events.append(event)
            after = event.sequence
        if len(batch) < _BATCH:
            return Page(events, None)
