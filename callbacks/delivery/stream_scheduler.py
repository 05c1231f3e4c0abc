"""Decides what a stream does next: send an event now, or wait, and for what."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now

from callbacks import delivery_hints
from callbacks.delivery import attempt_results, destination_queue, destination_rows
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Event, Subscription
from callbacks.rules import destination_breaker
from orchestrator_site.base.intervals import DeliveryIntervals


@dataclass(frozen=True, slots=True)
class Delivery:
    """The right to send one event now: `token` holds the lease on its stream and a slot at its destination."""

    token: UUID
    event: Event  # with its subscription and that one's destination
    now: datetime  # the database's time when the lease was granted


def locked_streams(*, skip_locked: bool = False) -> QuerySet[Any]:
    """Return streams that are locked as they are read, each with its destination and the database's time as `now`.

    The destination is not locked: it is as it was a moment ago.
    """
    rows = Subscription.objects.select_for_update(of=("self",), skip_locked=skip_locked)
    return rows.select_related("destination").annotate(now=Now())


class StreamScheduler:
    """The transitions of streams between their states. All methods run in a transaction with the stream's row locked.

    `next_attempt_at` is when a stream has to be looked at; `lease_token` is set while a delivery holds it, and with it a slot at
    its destination; `waiting_since` is set while it is parked in the queue of its destination.
    """

    def __init__(self, intervals: DeliveryIntervals, threads: ThreadLimiter) -> None:
        self._intervals, self._threads = intervals, threads

    def next_delivery(
        self, subscription: Subscription, now: datetime, token: UUID, *, holds_slot: bool, turn_over: bool = False
    ) -> Delivery | None:
        """Return the stream's first pending event if it may be sent now, else None. The first rule that applies decides:

        1. No event is pending: the stream sleeps until one is published.
        2. The first event has expired, because more have than one transaction marks as dead: the stream is requeued.
        3. The first event is due later: the stream sleeps until then.
        4. The turn of this stream is over: it is parked if others wait for its destination, else requeued.
        5. The destination is blocked (paused, breaker open, throttled), or streams wait for it that came earlier: parked.
        6. No thread may wait for this destination now: the stream sleeps for a few seconds.
        7. The destination has no free slot, and the stream holds none: parked.
        8. The stream gets the lease, and the event is sent.

        Args:
            subscription: The stream, with its destination.
            now: The database's time.
            token: The delivery that acquires the lease, or has it already.
            holds_slot: The delivery has a slot at the destination: from its last event, or passed on by another stream.
            turn_over: Other streams come first.
        """
        destination = subscription.destination
        event = self._first_pending(subscription, now)
        if event is None:
            self._sleep(subscription, until=None)
        elif event.expires_at <= now:
            self._requeue(subscription)
        elif event.next_attempt_at is not None and event.next_attempt_at > now:
            self._sleep(subscription, until=event.next_attempt_at)
        elif turn_over and not destination.waiting:
            self._requeue(subscription)
        elif turn_over or destination_breaker.is_blocked(destination, now) or (not holds_slot and _comes_later(subscription)):
            self._park(subscription, event, held_slot=holds_slot)
        elif not self._threads.acquire(token, destination):
            pause = random.uniform(*self._intervals.thread_wait)  # noqa: S311 - spreads load
            self._sleep(subscription, until=now + timedelta(seconds=pause))
        elif not (holds_slot or self._acquire_slot(subscription, token)):
            self._park(subscription, event, held_slot=False)
        else:
            return self._grant(subscription, event, now, token)
        return None

    @staticmethod
    def _first_pending(subscription: Subscription, now: datetime) -> Event | None:
        """Return the first pending event, after marking expired ones as dead. It is expired itself if there are many."""
        pending = subscription.events.filter(state=Event.State.PENDING).order_by("sequence")
        event = pending.first()
        if event is not None and event.expires_at <= now:
            attempt_results.mark_expired_dead(subscription, now)
            event = pending.first()
        return event

    def _grant(self, subscription: Subscription, event: Event, now: datetime, token: UUID) -> Delivery:
        # A parked stream was due only when its event expires. Now it is due as soon as the lease is over.
        due_at = min(subscription.next_attempt_at or now, now)
        lease_until = now + timedelta(seconds=self._intervals.lease)
        lease = {"lease_token": token, "lease_until": lease_until, "sending": event.pk, "sending_since": now}
        _update(subscription, next_attempt_at=due_at, waiting_since=None, **lease)
        if self._threads.is_fast(subscription.destination):
            self._threads.release(token)
        event.subscription = subscription
        return Delivery(token, event, now)

    def _acquire_slot(self, subscription: Subscription, token: UUID) -> bool:
        """Acquire a slot at the destination, whose row stays locked until the transaction ends. Return False if none is free."""
        destination, now = destination_rows.lock(subscription.destination_id)
        subscription.destination = destination
        in_flight = destination_rows.in_flight(destination, now)
        if not destination_breaker.free_slots(destination, now, in_flight, destination_rows.max_in_flight()):
            return False
        if destination_breaker.start_delivery(destination, now, token, self._intervals):
            destination.save(update_fields=destination_rows.BREAKER_FIELDS)
        return True

    def _requeue(self, subscription: Subscription) -> None:
        """Make the stream due now, behind other streams whose messages came earlier."""
        self._sleep(subscription, until=Now())
        delivery_hints.send_on_commit(subscription.pk)

    def _park(self, subscription: Subscription, event: Event, *, held_slot: bool) -> None:
        """Put the stream in the queue of its destination, until it is woken or its first event expires."""
        # Ordered by when streams became due, as in `park_due_streams`; one that has just used a slot goes to the end.
        since = Coalesce("waiting_since", Now() if held_slot else "next_attempt_at")
        self._sleep(subscription, until=event.expires_at, waiting_since=since)
        if not subscription.destination.waiting:
            destination_queue.start_queue(subscription.destination_id)

    @staticmethod
    def _sleep(subscription: Subscription, until: datetime | Now | None, waiting_since: Coalesce | None = None) -> None:
        """Give up the lease, if there is one, and make the stream due at `until`."""
        lease = dict.fromkeys(("lease_token", "lease_until", "sending", "sending_since"))
        _update(subscription, next_attempt_at=until, waiting_since=waiting_since, **lease)


def _comes_later(subscription: Subscription) -> bool:
    """Return True if streams wait for the destination, and this one is not among them."""
    return subscription.waiting_since is None and subscription.destination.waiting


def _update(subscription: Subscription, **values: Any) -> None:
    Subscription.objects.filter(pk=subscription.pk).update(**values)
