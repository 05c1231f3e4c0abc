"""The queue of streams that wait for a slot at their destination, and how they are woken.

A stream that finds no slot is parked: it is not due again until its first event expires, so a thousand streams for a dead
host cost nothing. The longest waiting stream gets the slot that a delivery frees (`stream_delivery` passes it on), or is woken
by the relay when the destination accepts deliveries again.
"""

from functools import partial
from typing import Final

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
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

    Return False if it has to be called again: another transaction has locked its row, or all streams that could be woken, or is
    about to park one. This never waits for a lock.
    """
    limit = destination_rows.max_in_flight()
    is_done = True
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
        if first and not destination.waiting:
            Destination.objects.filter(pk=pk).update(waiting=True)
        elif destination.waiting and not first:
            is_done = _unmark(pk)
        if parked and free:
            is_done = _wake_unlocked(waiting_streams(destination).filter(pk__in=parked), free)
    return is_done


def _unmark(pk: int) -> bool:
    """Remove the mark of a destination that no stream waits for.

    Return False if a publisher that has seen the mark is about to park one: it shares a lock on the row until it has committed
    (`outbox_rows`). Without the mark, nothing would wake that stream for seconds.
    """
    row = Destination.objects.filter(pk=pk)
    if row.select_for_update(skip_locked=True).values_list("pk", flat=True).first() is None:
        return False
    waiting = Subscription.objects.filter(destination=OuterRef("pk"), waiting_since__isnull=False)
    return bool(row.filter(~Exists(waiting)).update(waiting=False))


def _wake_unlocked(parked: QuerySet[Subscription], limit: int) -> bool:
    """Make the first of these streams due that no other transaction has locked. Return False if all are locked."""
    due = list(parked.select_for_update(skip_locked=True).values_list("pk", flat=True)[:limit])
    if due:
        Subscription.objects.filter(pk__in=due).update(next_attempt_at=Now())
        delivery_hints.send_on_commit()
    return bool(due)


def available() -> QuerySet[Destination]:
    """Return the destinations that streams wait for and that accept deliveries."""
    return Destination.objects.filter(
        Q(open_until=None) | Q(open_until__lte=Now()),
        Q(probe_until=None) | Q(probe_until__lte=Now()),
        Q(throttled_until=None) | Q(throttled_until__lte=Now()),
        Q(limited_until=None) | Q(limited_until__lte=Now()),
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
    """Return the waiting streams whose destination is not marked: a process that saw an earlier mark may have parked them."""
    return Subscription.objects.filter(waiting_since__isnull=False, destination__waiting=False)


def wake_unmarked() -> None:
    """Mark the destinations that streams wait for, and wake streams there: those that become due next would only join them.

    A destination that another transaction has locked is left for the next time.
    """
    with short_read():
        identities = list(unmarked().values_list("destination", flat=True).distinct()[:_BATCH])
    for identity in identities:
        wake_waiting(identity)
