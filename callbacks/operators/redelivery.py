"""Sends again what an operator or a client asks for: under the same ids, with all the tries and the time of a new event."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet, Value
from django.db.models.functions import Coalesce, Least, Now

from callbacks import delivery_hints
from callbacks.models import Destination, Event, Subscription
from callbacks.rules.event_verdict import LIFETIME_SECONDS
from orchestrator_site.base.db.transactions import short_read

_STREAMS: Final = 100  # of a destination, worked off at a time


def redeliver(stream: UUID, event_id: UUID) -> bool:
    """Send this event again, whatever became of it; one that waits for its next try is tried now. False: there is none."""
    with transaction.atomic():
        subscription = _locked(stream)
        if subscription is None:
            return False
        event = subscription.events.filter(pk=event_id)
        tried_now = event.filter(state=Event.State.PENDING).update(next_attempt_at=None)
        if not (tried_now or _revive(event)):
            return False
        _begin(subscription)
    return True


def redeliver_dead(stream: UUID, since: datetime | None = None, until: datetime | None = None) -> int:
    """Send all dead events of a stream again, in order; how many. `since` and `until`: those that died between these."""
    with transaction.atomic():
        subscription = _locked(stream)
        if subscription is None:
            return 0
        revived = _revive(_dead(since, until).filter(subscription=subscription))
        if revived:
            _begin(subscription)
    return revived


def redeliver_dead_of(destination_id: int, since: datetime) -> None:
    """Have the relay send again what died at this destination from then (at the latest now) until now.

    The request is kept in the row until it is worked off; a second one widens it.
    """
    earliest = Least(Coalesce("revive_since", Value(since)), Value(since), Now())
    Destination.objects.filter(pk=destination_id).update(revive_since=earliest, revive_until=Now())


def work_off() -> None:
    """Go on with what was asked for, some streams of each destination at a time."""
    with short_read():
        asked = list(Destination.objects.filter(revive_until__isnull=False))
    for destination in asked:
        with short_read():
            dead = _dead(destination.revive_since, destination.revive_until).filter(subscription__destination=destination)
            streams = list(dead.values_list("subscription__stream", flat=True).order_by().distinct()[:_STREAMS])
        for stream in streams:
            redeliver_dead(stream, destination.revive_since, destination.revive_until)
        if not streams:
            done = Destination.objects.filter(pk=destination.pk, revive_until__lte=destination.revive_until)  # unless asked again
            done.update(revive_since=None, revive_until=None)


def _dead(since: datetime | None, until: datetime | None) -> QuerySet[Event]:
    between: dict[str, Any] = {"settled_at__gte": since, "settled_at__lte": until}
    return Event.objects.filter(state=Event.State.DEAD, **{name: value for name, value in between.items() if value is not None})


def _locked(stream: UUID) -> Subscription | None:
    return Subscription.objects.select_for_update().defer(*Subscription.SECRETS).filter(stream=stream).first()


def _revive(events: QuerySet[Event]) -> int:
    return events.update(
        state=Event.State.PENDING,
        tries=0,
        silences=0,
        next_attempt_at=None,
        settled_at=None,
        expires_at=Now() + timedelta(seconds=LIFETIME_SECONDS),
    )


def _begin(subscription: Subscription) -> None:
    """Have the stream looked at now. One that waits for its destination keeps waiting there."""
    row = Subscription.objects.filter(pk=subscription.pk)
    row.update(bulk_refused=False)
    if subscription.waiting_since is None:
        row.update(next_attempt_at=Now())
        delivery_hints.deliverer_on_commit(subscription.pk)
