"""Some of the events that were not delivered to a destination. What this costs does not grow with its events."""

from typing import Final
from uuid import UUID

from django.db.models import OuterRef, Subquery

from callbacks.delivery import destination_queue
from callbacks.models import Destination, Event, Subscription

_SHOWN: Final = 5
_DEAD_LOOKED_AT: Final = 1_000  # the last of all destinations


def first_waiting(destination: Destination) -> list[Event]:
    """Return the next event of each of the streams that have waited longest for the destination, with its subscription."""
    next_pending = Event.objects.filter(subscription=OuterRef("pk"), state=Event.State.PENDING).order_by("sequence").values("pk")
    streams = destination_queue.waiting_streams(destination)[:_SHOWN]
    return _in_order(list(streams.annotate(next=Subquery(next_pending[:1])).values_list("next", flat=True)))


def last_dead(destination: Destination) -> list[Event]:
    """Return the events that died last at the destination, if they are among the last of all that died."""
    dead = Event.objects.filter(state=Event.State.DEAD, settled_at__isnull=False).order_by("-settled_at")
    last = list(dead.values_list("pk", "subscription__destination")[:_DEAD_LOOKED_AT])
    return _in_order([pk for pk, at in last if at == destination.pk][:_SHOWN])


def _in_order(pks: list[UUID]) -> list[Event]:
    rows = Event.objects.select_related("subscription").defer("body", *(f"subscription__{name}" for name in Subscription.SECRETS))
    found = rows.in_bulk(pks)
    return [found[pk] for pk in pks if pk in found]
