"""Streams that are due and that no message came for: found by walking the rows."""

import time
from typing import Final

from django.db.models import Q
from django.db.models.functions import Now

from callbacks import delivery_hints
from callbacks.models import Subscription
from orchestrator_site.base.broker import backlog
from orchestrator_site.base.db.transactions import short_read

_TELL_AGAIN_SECONDS: Final = 5.0  # of a stream whose message is not read yet, as it seems


def due(limit: int) -> list[int]:
    """Ids of at most `limit` subscriptions with something to do that nobody does, the longest due first."""
    with short_read():
        free = Q(lease_until=None) | Q(lease_until__lte=Now())
        waiting = Subscription.objects.filter(free, next_attempt_at__lte=Now()).order_by("next_attempt_at")
        return list(waiting.values_list("pk", flat=True)[:limit])


class Finder:
    """Sends messages for streams that none came for."""

    def __init__(self) -> None:
        self._told: dict[int, float] = {}  # when, of those that may still be unread

    def look(self, limit: int = 500) -> int:
        """Tell of streams that are due, the longest due first; of how many. No more than `limit` are left unread at a time."""
        unread, now = backlog(delivery_hints.QUEUE), time.monotonic()
        self._told = {stream: told for stream, told in self._told.items() if unread and now - told < _TELL_AGAIN_SECONDS}
        room = limit - unread
        found = due(limit + len(self._told)) if room > 0 else []
        streams = [stream for stream in found if stream not in self._told][: max(0, room)]
        for stream in streams:
            delivery_hints.deliverer(stream)
            self._told[stream] = now
        return len(streams)
