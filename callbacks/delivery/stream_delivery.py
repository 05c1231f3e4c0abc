"""Delivers the events of streams, in order within each stream, and records the results.

A delivery holds a lease on its stream: a token, and an end by the database's clock. Each attempt is recorded with all its
consequences in one transaction, which does nothing if the lease has gone to another token. So if a process dies between sending
and recording, its lease expires and the event is sent again under the same id.
"""

import time
from collections.abc import Callable
from uuid import UUID, uuid4

from django.db.models.functions import Now

from callbacks import signing
from callbacks.cloudevents import Envelope
from callbacks.delivery import attempt_results, delivery_attempt, destination_queue
from callbacks.delivery.stream_scheduler import Delivery, StreamScheduler, locked_streams
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Subscription
from callbacks.rules import destination_breaker
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.db.transactions import release_connection, short_transaction
from orchestrator_site.base.intervals import DeliveryIntervals

MAX_ATTEMPTS = 50  # of a stream in a row: then a thread goes on to another stream


class Deliverer:
    """The deliveries of one process. Its methods may be called by any number of threads."""

    def __init__(
        self,
        intervals: DeliveryIntervals = DeliveryIntervals(),
        *,
        threads: ThreadLimiter | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        send: Callable[..., Outcome] = delivery_attempt.send,
    ) -> None:
        self._intervals, self._max_attempts, self._post = intervals, max_attempts, send
        self._threads = threads or ThreadLimiter(intervals)
        self._scheduler = StreamScheduler(intervals, self._threads)
        self._stopping = False
        self._tokens: set[UUID] = set()  # of the leases that this process holds

    def deliver(self, subscription_id: int) -> None:
        """Deliver the due events of a stream, then those of streams that wait for the same destination.

        Send nothing if the stream is not due, another delivery holds its lease, or its destination has no free slot. May be
        called at any time, by any number of processes.

        Raises:
            DatabaseError: The database fails; the lease then expires.
        """
        token = uuid4()
        self._tokens.add(token)
        turn_ends = time.monotonic() + self._intervals.turn
        try:
            delivery = None if self._stopping else self._claim(subscription_id, token)
            attempts = 0
            while delivery is not None:
                event, before = delivery.event, delivery.event.subscription.destination
                with self._threads.attempt(token, before):
                    outcome = self._send(delivery)
                attempts += 1
                out_of_time = time.monotonic() > turn_ends or self._stopping
                turn_over = out_of_time or attempts == self._max_attempts
                delivery = self._record(delivery, outcome, turn_over=turn_over, may_switch=not out_of_time)
                if delivery is None or delivery.event.subscription_id != event.subscription_id:
                    attempts = 0
                after = event.subscription.destination
                # A slot is free if it was not passed on, and more are if the window has grown: other threads may use them.
                if after.waiting and (delivery is None or destination_breaker.may_get_more(before, after)):
                    destination_queue.wake_waiting(after.pk)
        finally:
            self._threads.release(token)
            self._tokens.discard(token)

    def stop(self) -> None:
        """Start no more attempts. Those in flight may finish and are recorded."""
        self._stopping = True

    def release_leases(self) -> None:
        """Give up the leases on streams whose attempts are still in flight, so that other processes may deliver them at once."""
        Subscription.objects.filter(lease_token__in=list(self._tokens)).update(lease_until=Now())
        release_connection()

    def _claim(self, subscription_id: int, token: UUID) -> Delivery | None:
        """Acquire the lease on a stream if it is due and not leased; return what to send now."""
        with short_transaction():
            # Selected by its key alone: given other conditions, the planner might be tempted by a partial index.
            subscription = locked_streams().filter(pk=subscription_id).first()
            if subscription is None:
                return None
            now = subscription.now
            is_due = subscription.next_attempt_at is not None and subscription.next_attempt_at <= now
            is_leased = subscription.lease_until is not None and subscription.lease_until > now
            if is_leased or not is_due:
                return None
            if subscription.lease_token is not None:
                attempt_results.record_interrupted_attempt(subscription)
            return self._scheduler.next_delivery(subscription, now, token, holds_slot=False)

    def _send(self, delivery: Delivery) -> Outcome:
        """Send the frozen bytes of the event, signed with the time of the delivery. No database connection is held."""
        event, subscription = delivery.event, delivery.event.subscription
        body, identity = bytes(event.body), str(event.pk)
        envelope = Envelope(
            id=identity,
            source=event.source,
            type=event.type,
            subject=subscription.subject,
            time=event.time,
            jobsequence=event.sequence,
        )
        headers = (subscription.headers or {}) | envelope.headers()
        if keys := [key for key in (subscription.key, subscription.previous_key) if key is not None]:
            headers |= signing.headers(keys, identity, int(delivery.now.timestamp()), body)
        return self._post(subscription.url, headers, body, self._intervals)

    def _record(self, delivery: Delivery, outcome: Outcome, *, turn_over: bool, may_switch: bool) -> Delivery | None:
        """Commit an attempt with all its consequences; return what to send next, or None if there is nothing for this thread.

        Args:
            delivery: What was sent.
            outcome: What came of it.
            turn_over: Other streams come before the next event of this one.
            may_switch: This thread may go on with a stream that waits for the slot.
        """
        event = delivery.event
        with short_transaction():
            subscription = locked_streams().filter(pk=event.subscription_id).first()
            if subscription is None or subscription.lease_token != delivery.token:
                return None
            now, token = subscription.now, delivery.token
            event.subscription = subscription
            attempt_results.update_destination(subscription, token, outcome, self._intervals)
            attempt_results.record_attempt(event, now, outcome, self._intervals)
            following = self._scheduler.next_delivery(subscription, now, token, holds_slot=True, turn_over=turn_over)
            if following is None and may_switch and outcome.accepted and subscription.destination.waiting:
                following = self._pass_slot(subscription, token)
            return following

    def _pass_slot(self, last: Subscription, token: UUID) -> Delivery | None:
        """Pass the slot of a stream to the longest waiting stream that is not locked; return what to send of that one."""
        waiting = locked_streams(skip_locked=True).filter(destination=last.destination_id, waiting_since__isnull=False)
        subscription = waiting.exclude(pk=last.pk).order_by("waiting_since").first()
        if subscription is None:
            return None
        return self._scheduler.next_delivery(subscription, subscription.now, token, holds_slot=True)
