"""What became of the events of a stream, to be read a page at a time."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callbacks.models import Event

_BATCH: Final = 50
_PAGE_LENGTH: Final = 2 * 1024**2  # characters of answers and errors in one page


@dataclass(frozen=True, slots=True)
class Page:
    events: list[Event]  # with their attempts, the oldest first
    next_after: int | None  # the sequence after which the next page begins; None: there is nothing more


def page_of_events(stream: UUID, *, after: int, limit: int, state: str | None) -> Page:
    """At most `limit` events that follow the sequence `after`, in order; fewer where much was answered."""
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
