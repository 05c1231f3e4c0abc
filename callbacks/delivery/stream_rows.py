"""Reads and writes the rows of many streams at once, in SQL (see `orchestrator_site.base.db.statements`)."""

import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.db import connection

from callbacks.models import Destination, Event, Subscription
from orchestrator_site.base.db.statements import placeholders, select_rows, sql, update_rows

# What a delivery changes of a stream.
_CHANGED: Final = (
    "next_attempt_at",
    "waiting_since",
    "promised",
    "promised_at",
    "lease_token",
    "lease_until",
    "sending",
    "sending_since",
    "bulk_refused",
)
_LOCK: Final = "WHERE id IN (%s) {skip_locked}"
_LOCK_DESTINATIONS: Final = "WHERE id IN (%s) ORDER BY id {skip_locked}"
_LOCK_WAITING: Final = """
WHERE destination_id = %s AND waiting_since IS NOT NULL AND id NOT IN (%s) ORDER BY waiting_since, id LIMIT %s {skip_locked}
"""
MAX_RUN: Final = 8  # events that may be sent under one lease: 512 KiB at most, as an event has 64

# The first pending events of each stream. With the statement for SQLite, which has no LATERAL, PostgreSQL may read all pending
# events: 0.7 s instead of 2 ms for 64 streams with 2000 events each.
_RUNS: Final = {
    "postgresql": """
WHERE id IN (
    SELECT first.id FROM callbacks_subscription AS stream, LATERAL (
        SELECT event.id FROM callbacks_event AS event
        WHERE event.subscription_id = stream.id AND event.state = 'pending' ORDER BY event.sequence LIMIT %s
    ) AS first
    WHERE stream.id IN (%s)
)
ORDER BY sequence
""",
    "sqlite": """
JOIN (
    SELECT %s AS length, stream.id AS stream, (
        SELECT sequence FROM callbacks_event AS event
        WHERE event.subscription_id = stream.id AND event.state = 'pending' ORDER BY sequence LIMIT 1
    ) AS beginning
    FROM callbacks_subscription AS stream WHERE stream.id IN (%s)
) AS run ON subscription_id = run.stream AND state = 'pending' AND sequence < run.beginning + run.length
ORDER BY sequence
""",
}


class LockedStreams:
    """Streams whose rows are locked until the transaction ends, without their secrets.

    Streams that another transaction has locked are left out, so that the others do not wait for it. Destinations are as they were
    a moment ago, until `lock_destinations` locks them. Streams of one destination share the object.
    """

    def __init__(self, identities: Sequence[int]) -> None:
        self.began = time.monotonic()  # before the database's time was read
        self.destinations: dict[int, Destination] = {}
        self.now = datetime.min.replace(tzinfo=UTC)  # the database's time
        self.streams: dict[int, Subscription] = {}
        self.free_slots: dict[int, int] = {}  # of destinations whose rows are locked, too
        self.must_look = False  # whether some stream is due again at once
        # Those at the limit of an owner, with the sizes of what they might send now.
        self.at_limit: list[tuple[Subscription, list[int]]] = []
        if identities:
            self._lock(sql(_LOCK) % placeholders(identities), identities)

    def add_waiting(self, destination: Destination, limit: int) -> list[Subscription]:
        """Lock the streams that have waited longest for a destination, and return them."""
        known = list(self.streams)
        return self._lock(sql(_LOCK_WAITING) % ("%s", placeholders(known), "%s"), [destination.pk, *known, limit])

    def lock_destinations(self, identities: Collection[int]) -> None:
        """Lock these destinations and read them again. Leave out the streams of those that another transaction has locked."""
        if not identities:
            return
        statement = sql(_LOCK_DESTINATIONS) % placeholders(list(identities))
        locked = {destination.pk: destination for destination in select_rows(Destination, statement, list(identities))}
        self.destinations |= locked
        for stream in list(self.streams.values()):
            if stream.destination_id in locked:
                stream.destination = locked[stream.destination_id]
            elif stream.destination_id in identities:
                del self.streams[stream.pk]

    def load_runs(self, streams: Collection[Subscription]) -> dict[int, list[Event]]:
        """Return the first pending event of each stream that has one, and a few pending ones that follow it without a gap."""
        identities = [stream.pk for stream in streams]
        if not identities:
            return {}
        statement = _RUNS[connection.vendor] % ("%s", placeholders(identities))
        runs: dict[int, list[Event]] = {}
        for event in select_rows(Event, statement, [MAX_RUN, *identities], large=True):
            run = runs.setdefault(event.subscription_id, [])
            if not run or event.sequence == run[-1].sequence + 1:
                run.append(event)
        return runs

    def save(self) -> None:
        """Store the streams."""
        update_rows(Subscription, list(self.streams.values()), _CHANGED)

    def _lock(self, condition: str, parameters: Sequence[Any]) -> list[Subscription]:
        streams = select_rows(Subscription, condition, parameters, omit=Subscription.SECRETS)
        if new := list({stream.destination_id for stream in streams} - self.destinations.keys()):
            for destination in select_rows(Destination, f"WHERE id IN ({placeholders(new)})", new):
                self.destinations[destination.pk] = destination
        for stream in streams:
            stream.destination, self.now = self.destinations[stream.destination_id], stream.now  # type: ignore[attr-defined]
            self.streams[stream.pk] = stream
        return streams


def existing(identities: Sequence[int]) -> set[int]:
    """Return those of these streams that exist, locked or not."""
    return set(Subscription.objects.filter(pk__in=identities).values_list("pk", flat=True)) if identities else set()
