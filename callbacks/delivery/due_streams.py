"""Finds due streams whose message was lost, by polling the table."""

import time

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from callbacks import delivery_hints
from callbacks.models import Subscription
from orchestrator_site.base.broker import backlog
from orchestrator_site.base.db.transactions import short_read
from orchestrator_site.base.intervals import DeliveryIntervals


def due_rows() -> QuerySet[Subscription]:
    """Return the due subscriptions that no process delivers."""
    free = Q(lease_until=None) | Q(lease_until__lte=Now())
    return Subscription.objects.filter(free, next_attempt_at__lte=Now())


def due(limit: int) -> list[int]:
    """Return the ids of at most `limit` due subscriptions that no process delivers, the longest due first."""
    with short_read():
        return list(due_rows().order_by("next_attempt_at").values_list("pk", flat=True)[:limit])


class Finder:
    """The sender of messages for due streams."""

    def __init__(self, intervals: DeliveryIntervals = DeliveryIntervals()) -> None:
        self._intervals = intervals
        self._enqueued: dict[int, float] = {}  # when a message was sent for a stream, if it may still be unread

    def enqueue(self, limit: int = 500) -> int:
        """Send messages for due streams, the longest due first, until `limit` messages are unread; return how many were sent."""
        unread, now = backlog(delivery_hints.QUEUE), time.monotonic()
        recently = now - self._intervals.repeat_hint
        self._enqueued = {stream: sent for stream, sent in self._enqueued.items() if unread and sent > recently}
        room = max(0, limit - unread)
        found = due(limit + len(self._enqueued)) if room else []
        streams = [stream for stream in found if stream not in self._enqueued][:room]
        for stream in streams:
            delivery_hints.send(stream)
            self._enqueued[stream] = now
        return len(streams)
