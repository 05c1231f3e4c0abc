"""Some of the events that were not delivered to a destination. What this costs does not grow with its events."""

from typing import Final
from uuid import UUID

from django.db.models import OuterRef, Subquery

from callbacks.delivery import destination_queue
from callbacks.models import Destination, Event, Subscription

_SHOWN: Final = 5
_LOOKED_AT: Final = 1_000  # of all destinations


def next_events(destination: Destination) -> list[Event]:
    """Return the next event of some streams, with its subscription: those to be tried next, then the longest waiting.

    The former are looked for among the first of all destinations.
    """
    due = Subscription.objects.filter(next_attempt_at__isnull=False).order_by("next_attempt_at")
    first = list(due.values_list("pk", "destination", "waiting_since")[:_LOOKED_AT])
    streams = [pk for pk, at, waiting_since in first if at == destination.pk and waiting_since is None]
    streams += destination_queue.waiting_streams(destination).values_list("pk", flat=True)[:_SHOWN]
    streams = streams[:_SHOWN]
    next_pending = Event.objects.filter(subscription=OuterRef("pk"), state=Event.State.PENDING).order_by("sequence").values("pk")
    events = Subscription.objects.filter(pk__in=streams).annotate(next=Subquery(next_pending[:1]))
    found = dict(events.values_list("pk", "next"))
    return _in_order([found[pk] for pk in streams if pk in found])


def last_dead(destination: Destination) -> list[Event]:
    """Return the events that died last at the destination, if they are among the last of all that died."""
    dead = Event.objects.filter(state=Event.State.DEAD, settled_at__isnull=False).order_by("-settled_at")
    last = list(dead.values_list("pk", "subscription")[:_LOOKED_AT])  # without a join, for which all dead ones might be read
    streams = Subscription.objects.filter(pk__in={stream for _, stream in last}, destination=destination.pk)
    of_destination = set(streams.values_list("pk", flat=True))
    return _in_order([pk for pk, stream in last if stream in of_destination][:_SHOWN])


def _in_order(pks: list[UUID]) -> list[Event]:
    rows = Event.objects.select_related("subscription").defer("body", *(f"subscription__{name}" for name in Subscription.SECRETS))
    found = rows.in_bulk(pks)
    return [found[pk] for pk in pks if pk in found]
