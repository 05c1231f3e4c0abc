"""The queue of streams that wait for a slot at their destination, and how they are woken.

A stream that finds no slot is parked: it is not due again until its first event expires, so a thousand streams for a dead
host cost nothing. The longest waiting stream gets the slot that a delivery frees (`stream_delivery` passes it on), or is woken
by the relay when the destination accepts deliveries again.
"""

from functools import partial
from typing import Final

from django.db import transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now

from callbacks import delivery_hints
from callbacks.delivery import destination_rows
from callbacks.models import Destination, Event, Subscription
from callbacks.rules import destination_breaker
from orchestrator_site.base.db.transactions import short_read, short_transaction

_BATCH: Final = 500


def waiting_streams(destination: Destination) -> QuerySet[Subscription]:
    """Return the streams that are parked for this destination, the longest waiting first."""
    return destination.subscriptions.filter(waiting_since__isnull=False).order_by("waiting_since", "pk")


def start_queue(pk: int) -> None:
    """Mark the destination as waited for, and park its other due streams once this transaction is committed."""
    Destination.objects.filter(pk=pk).update(waiting=True)
    transaction.on_commit(partial(park_due_streams, pk), robust=True)


def park_due_streams(pk: int) -> None:
    """Park all due streams of a destination in the order in which they became due, so that none has to find out by itself."""
    pending = Event.objects.filter(subscription=OuterRef("pk"), state=Event.State.PENDING).order_by("sequence")
    while True:
        with short_transaction():
            due = Subscription.objects.select_for_update(skip_locked=True).filter(
                destination=pk, next_attempt_at__lte=Now(), lease_token=None, waiting_since=None
            )
            streams = list(due.order_by("next_attempt_at", "pk").values_list("pk", flat=True)[:_BATCH])
            expiry = Coalesce(Subquery(pending.values("expires_at")[:1]), Now())
            Subscription.objects.filter(pk__in=streams).update(waiting_since=F("next_attempt_at"), next_attempt_at=expiry)
        if len(streams) < _BATCH:
            return


def wake_waiting(pk: int) -> bool:
    """Make as many waiting streams due as the destination has free slots, unless it was deleted.

    Return False if another transaction has locked its row. Streams that are locked are left out: this never waits for a lock.
    """
    limit = destination_rows.max_in_flight()
    with short_transaction():
        locked = destination_rows.lock_if_free(pk)
        if locked is None:
            return not Destination.objects.filter(pk=pk).exists()
        destination, now = locked
        # Streams that were woken and not delivered yet have waited longest, so they come first and count as in flight.
        first = list(waiting_streams(destination).values_list("pk", "next_attempt_at")[: 2 * limit])
        parked = [stream for stream, due_at in first if due_at is not None and due_at > now]
        woken = len(first) - len(parked)
        in_flight = destination_rows.in_flight(destination, now) + woken
        free = destination_breaker.free_slots(destination, now, in_flight, limit)
        if not first and destination.waiting:
            Destination.objects.filter(pk=pk).update(waiting=False)
        unlocked = waiting_streams(destination).filter(pk__in=parked).select_for_update(skip_locked=True)
        due = list(unlocked.values_list("pk", flat=True)[:free]) if parked and free else []
        if due:
            Subscription.objects.filter(pk__in=due).update(next_attempt_at=Now())
    if due:
        delivery_hints.send()
    return True


def available() -> QuerySet[Destination]:
    """Return the destinations that streams wait for and that accept deliveries."""
    return Destination.objects.filter(
        Q(open_until=None) | Q(open_until__lte=Now()),
        Q(probe_until=None) | Q(probe_until__lte=Now()),
        Q(throttled_until=None) | Q(throttled_until__lte=Now()),
        waiting=True,
        paused=False,
    )


def wake_available() -> None:
    """Wake waiting streams of every destination that accepts deliveries, the one blocked longest first."""
    with short_read():
        longest_first = available().order_by(F("open_until").asc(nulls_last=True))
        identities = list(longest_first.values_list("pk", flat=True)[:_BATCH])
    for identity in identities:
        wake_waiting(identity)


def unmarked() -> QuerySet[Subscription]:
    """Return the streams whose destination is not marked: they may have been parked just as the mark was removed."""
    return Subscription.objects.filter(waiting_since__isnull=False, destination__waiting=False)


def mark_waiting() -> None:
    """Mark every destination that streams wait for. One that another transaction has locked is left for the next time."""
    with short_transaction():
        needed = Destination.objects.filter(pk__in=unmarked().values("destination")).order_by("pk")
        unlocked = list(needed.select_for_update(no_key=True, skip_locked=True).values_list("pk", flat=True))
        Destination.objects.filter(pk__in=unlocked).update(waiting=True)
