"""Redelivery: sends events again under the same ids, with as many tries and as much time as new events have."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet, Value
from django.db.models.functions import Coalesce, Least, Now

from callbacks import delivery_hints
from callbacks.models import Destination, Event, Subscription
from orchestrator_site.base.db.transactions import short_read
from orchestrator_site.base.intervals import DeliveryIntervals

_STREAMS_BATCH: Final = 100  # of one destination
_LIFETIME: Final = timedelta(seconds=DeliveryIntervals().lifetime)


def redeliver(stream: UUID, event_id: UUID) -> bool:
    """Send an event again, whatever its state; a pending one is tried now. Return False if it does not exist."""
    with transaction.atomic():
        subscription = _lock(stream)
        if subscription is None:
            return False
        event = subscription.events.filter(pk=event_id)
        tried_now = event.filter(state=Event.State.PENDING).update(next_attempt_at=None)
        if not (tried_now or _revive(event)):
            return False
        _make_due(subscription)
    return True


def redeliver_dead(stream: UUID, since: datetime | None = None, until: datetime | None = None) -> int:
    """Send the dead events of a stream again, in order; return how many.

    Args:
        stream: Whose events.
        since: Skip events that died earlier.
        until: Skip events that died later.
    """
    with transaction.atomic():
        subscription = _lock(stream)
        if subscription is None:
            return 0
        revived = _revive(_dead(since, until).filter(subscription=subscription))
        if revived:
            _make_due(subscription)
    return revived


def has_dead(destination_id: int, since: datetime) -> bool:
    """Return True if an event has died at this destination since then, and has not been sent again."""
    return _dead_at(destination_id, since, None).exists()


def request_redelivery(destination_id: int, since: datetime) -> None:
    """Have the relay send again what died at this destination since then; a time in the future counts as now.

    The request is kept in the destination's row until it is done. A second one widens the first.
    """
    earliest = Least(Coalesce("revive_since", Value(since)), Value(since), Now())
    Destination.objects.filter(pk=destination_id).update(revive_since=earliest, revive_until=Now())


def requested() -> QuerySet[Destination]:
    """Return the destinations that redeliveries are requested for."""
    return Destination.objects.filter(revive_until__isnull=False)


def process_requests() -> None:
    """Continue all requested redeliveries, by a batch of streams for each destination."""
    with short_read():
        destinations = list(requested())
    for destination in destinations:
        with short_read():
            dead = _dead_at(destination.pk, destination.revive_since, destination.revive_until)
            streams = list(dead.values_list("subscription__stream", flat=True).order_by().distinct()[:_STREAMS_BATCH])
        for stream in streams:
            redeliver_dead(stream, destination.revive_since, destination.revive_until)
        if not streams:
            done = Destination.objects.filter(pk=destination.pk, revive_until__lte=destination.revive_until)  # no newer request
            done.update(revive_since=None, revive_until=None)


def _dead(since: datetime | None, until: datetime | None) -> QuerySet[Event]:
    between: dict[str, Any] = {"settled_at__gte": since, "settled_at__lte": until}
    return Event.objects.filter(state=Event.State.DEAD, **{name: value for name, value in between.items() if value is not None})


def _dead_at(destination_id: int, since: datetime | None, until: datetime | None) -> QuerySet[Event]:
    return _dead(since, until).filter(subscription__destination=destination_id)


def _lock(stream: UUID) -> Subscription | None:
    return Subscription.objects.select_for_update().defer(*Subscription.SECRETS).filter(stream=stream).first()


def _revive(events: QuerySet[Event]) -> int:
    return events.update(
        state=Event.State.PENDING,
        tries=0,
        silences=0,
        next_attempt_at=None,
        settled_at=None,
        expires_at=Now() + _LIFETIME,
    )


def _make_due(subscription: Subscription) -> None:
    """Make the stream due now, unless it is parked: then it keeps its position in the queue of its destination."""
    row = Subscription.objects.filter(pk=subscription.pk)
    row.update(bulk_refused=False)
    if subscription.waiting_since is None:
        row.update(next_attempt_at=Now())
        delivery_hints.send_on_commit()
