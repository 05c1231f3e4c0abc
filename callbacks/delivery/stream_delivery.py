"""Sends the events of one stream, in order, and remembers what came of it.

Whoever delivers a stream holds a lease on it: a token and an end by the database's clock. Each attempt and its
consequences are one transaction, refused where the token is not ours any more. So a process that dies between the
sending and that transaction leaves an event that is sent again under the same id, and never a stream that nobody takes up.

What a stream does next is decided in one place, `_proceed`, with its row locked: who publishes locks that row, too.
"""

import random
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now

from callbacks import delivery_hints, signing
from callbacks.cloudevents import Envelope
from callbacks.delivery import attempt_results, delivery_attempt, destination_queue, thread_limiter
from callbacks.delivery.thread_limiter import Permit
from callbacks.models import Event, Subscription
from callbacks.rules import destination_breaker
from callbacks.rules.destination_breaker import LEASE_SECONDS
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.db.transactions import release_connection, short_transaction

_UNTRUSTED_PAUSE: Final = (2.0, 6.0)  # seconds until a stream asks again for a thread that may wait for it
# A thread goes on to another stream after so much of one.
_MOST_ATTEMPTS: Final = 50
_MOST_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Turn:
    """The right to send one event now."""

    token: UUID
    event: Event
    now: datetime  # by the database's clock, when it was given


class _Work:
    """The leases of this process."""

    def __init__(self) -> None:
        self.stopping = False
        self.tokens: set[UUID] = set()


_work = _Work()


def drain(subscription_id: int) -> None:
    """Send what is due of this stream, unless somebody else does or its destination has no room; then what waits for that room.

    May be called at any time, by any number of processes. Raises what the database raises; the lease then runs out.
    """
    permit, token = Permit(), uuid4()
    _work.tokens.add(token)
    stop_at = time.monotonic() + _MOST_SECONDS
    try:
        turn = None if _work.stopping else _take_up(subscription_id, token, permit)
        sent = 0
        while turn is not None:
            event, before = turn.event, turn.event.subscription.destination
            with thread_limiter.waiting_for(before):
                outcome = _attempt(event, turn.now)
            sent += 1
            out_of_time = time.monotonic() > stop_at or _work.stopping
            turn = _record(turn, outcome, permit, tired=sent == _MOST_ATTEMPTS or out_of_time, goes_on=not out_of_time)
            if turn is None or turn.event.subscription_id != event.subscription_id:
                sent = 0
            destination = event.subscription.destination
            if destination.waiting and (turn is None or destination_breaker.has_gained(before, destination)):  # there is room now
                destination_queue.wake_waiting(destination.pk)
    finally:
        permit.release()
        _work.tokens.discard(token)


def start() -> None:
    """This process delivers (again)."""
    _work.stopping = False


def let_go() -> None:
    """Begin nothing more of a stream: what is under way may end."""
    _work.stopping = True


def abandon() -> None:
    """Give up the leases that are still held: others need not wait for their end."""
    Subscription.objects.filter(lease_token__in=list(_work.tokens)).update(lease_until=Now())
    release_connection()


# -- transactions ---------------------------------------------------------------------------------------


def _take_up(subscription_id: int, token: UUID, permit: Permit) -> _Turn | None:
    """The lease on a stream that is due, with the event to be sent."""
    with short_transaction():
        found = _locked(subscription_id)
        if found is None:
            return None
        subscription, now = found
        is_due = subscription.next_attempt_at is not None and subscription.next_attempt_at <= now
        is_taken = subscription.lease_until is not None and subscription.lease_until > now
        if is_taken or not is_due:
            return None
        if subscription.lease_token is not None:
            attempt_results.account_for_interrupted(subscription)
            subscription.lease_token = None
        return _proceed(subscription, now, token, permit)


def _record(turn: _Turn, outcome: Outcome, permit: Permit, *, tired: bool, goes_on: bool) -> _Turn | None:
    """Commit an attempt with all its consequences; what is to be sent next. None: nothing now, or not by us.

    `tired`: others have their turn before this stream goes on. `goes_on`: with another stream that waits for this place.
    """
    event = turn.event
    with short_transaction():
        found = _locked(event.subscription_id)
        if found is None or found[0].lease_token != turn.token:
            return None
        subscription, now = found
        event.subscription = subscription
        attempt_results.learn(subscription, turn.token, outcome)
        attempt_results.settle(event, now, outcome)
        following = _proceed(subscription, now, turn.token, permit, tired=tired)
        if following is None and goes_on and outcome.accepted and subscription.destination.waiting:
            following = _hand_on(subscription, turn.token, permit)
        return following


def _hand_on(last: Subscription, token: UUID, permit: Permit) -> _Turn | None:
    """Give the place that a stream has left to the one that waits longest for it and that nobody looks at."""
    waiting = _rows(skip_locked=True).filter(destination=last.destination_id, waiting_since__isnull=False).exclude(pk=last.pk)
    subscription = waiting.order_by("waiting_since").first()
    if subscription is None:
        return None
    subscription.lease_token = token
    return _proceed(subscription, subscription.now, token, permit)


def _locked(pk: int) -> tuple[Subscription, datetime] | None:
    """The row, locked, with its destination as it was a moment ago, and the database's time.

    It is asked for by its key alone: a planner that knew of other conditions might find a partial index tempting.
    """
    subscription = _rows().filter(pk=pk).first()
    return None if subscription is None else (subscription, subscription.now)


def _rows(*, skip_locked: bool = False) -> QuerySet[Any]:
    locked = Subscription.objects.select_for_update(of=("self",), skip_locked=skip_locked)
    return locked.select_related("destination").annotate(now=Now())


# -- what a stream does next ------------------------------------------------------------------------------


def _proceed(subscription: Subscription, now: datetime, token: UUID, permit: Permit, *, tired: bool = False) -> _Turn | None:
    """The first pending event, where it is due and its destination has room; else when the stream is to be looked at again."""
    destination = subscription.destination
    event = _first_pending(subscription, now)
    if event is None:
        _rest(subscription, None)
    elif event.expires_at <= now:
        _rest(subscription, Now())
        delivery_hints.deliverer_on_commit(subscription.pk)
    elif event.next_attempt_at is not None and event.next_attempt_at > now:
        _rest(subscription, event.next_attempt_at)
    elif tired and not destination.waiting:
        _rest(subscription, Now())
        delivery_hints.deliverer_on_commit(subscription.pk)  # to the end of the queue: others wait, too
    elif tired or destination_breaker.is_closed_to_all(destination, now) or _finds_a_queue(subscription):
        _wait(subscription, event)
    elif not permit.allows(destination):
        _rest(subscription, now + timedelta(seconds=random.uniform(*_UNTRUSTED_PAUSE)))  # noqa: S311 - spreads load
    elif subscription.lease_token is None and not _enter(subscription, token):
        _wait(subscription, event)
    else:
        lease = {"lease_token": token, "lease_until": now + timedelta(seconds=LEASE_SECONDS)}
        # One that waited was due only when its event would be too old: now it is as soon as the lease is over.
        due_at = min(subscription.next_attempt_at or now, now)
        _change(subscription, next_attempt_at=due_at, waiting_since=None, sending=event.pk, sending_since=now, **lease)
        if thread_limiter.is_trusted(subscription.destination):
            permit.release()
        event.subscription = subscription
        return _Turn(token, event, now)
    return None


def _first_pending(subscription: Subscription, now: datetime) -> Event | None:
    """The first pending event. It is too old only where there are more of these than are buried at a time."""
    pending = subscription.events.filter(state=Event.State.PENDING).order_by("sequence")
    event = pending.first()
    if event is not None and event.expires_at <= now:
        attempt_results.bury_expired(subscription, now)
        event = pending.first()
    return event


def _finds_a_queue(subscription: Subscription) -> bool:
    """Whether it has no place, and others wait for one that were there before it."""
    return subscription.lease_token is None and subscription.waiting_since is None and subscription.destination.waiting


def _enter(subscription: Subscription, token: UUID) -> bool:
    """Take a place at the destination. False: there is none."""
    destination, now = destination_queue.locked(subscription.destination_id)
    subscription.destination = destination
    if not destination_breaker.room(
        destination, now, destination_queue.under_way(destination, now), destination_queue.most_at_once()
    ):
        return False
    if destination_breaker.enter(destination, now, token):
        destination.save(update_fields=destination_queue.STATE)
    return True


def _wait(subscription: Subscription, event: Event) -> None:
    """Until there is room at the destination, or the event is too old."""
    came = "next_attempt_at" if subscription.lease_token is None else Now()  # as `line_up` has it; who had a place comes last
    _rest(subscription, event.expires_at, waiting_since=Coalesce("waiting_since", came))
    if not subscription.destination.waiting:
        destination_queue.begin_queue(subscription.destination_id)


def _rest(subscription: Subscription, next_attempt_at: datetime | Now | None, waiting_since: Coalesce | None = None) -> None:
    lease = dict.fromkeys(("lease_token", "lease_until", "sending", "sending_since"))
    _change(subscription, next_attempt_at=next_attempt_at, waiting_since=waiting_since, **lease)


def _change(subscription: Subscription, **values: Any) -> None:
    Subscription.objects.filter(pk=subscription.pk).update(**values)


# -- an attempt and what comes of it ----------------------------------------------------------------------


def _attempt(event: Event, now: datetime) -> Outcome:
    """Send the frozen bytes, signed as of `now`. Holds no connection to the database."""
    subscription, body, identity = event.subscription, bytes(event.body), str(event.pk)
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
        headers |= signing.headers(keys, identity, int(now.timestamp()), body)
    return delivery_attempt.send(subscription.url, headers, body)
