"""Sends the events of one stream, in order, and remembers what came of it.

Whoever delivers a stream holds a lease on it: a token and an end by the database's clock. Each attempt and its
consequences are one transaction, refused where the token is not ours any more. So a process that dies between the
sending and that transaction leaves an event that is sent again under the same id, and never a stream that nobody takes up.

What a stream does next is decided in one place, `_proceed`, with its row locked: who publishes locks that row, too.
"""

import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce, Now

from callbacks import breaker, destinations, policy, signing, transport, wake
from callbacks.breaker import LEASE_SECONDS
from callbacks.cloudevents import Envelope
from callbacks.models import Attempt, Event, Subscription
from callbacks.policy import Dead, Retry
from callbacks.transport import Outcome
from orchestrator_site.broker import backlog
from orchestrator_site.database import release_connection, short_read, short_transaction

logger = logging.getLogger(__name__)

THREADS: Final = 64  # of a process
# Those that may be busy with destinations that have not proven themselves: however many hang, the others are left.
_UNPROVEN_THREADS: Final = THREADS // 2
_UNPROVEN_PAUSE: Final = (2.0, 6.0)  # seconds until a stream asks again for one of them
# A thread goes on to another stream after so much of one.
_MOST_ATTEMPTS: Final = 50
_MOST_SECONDS: Final = 10.0
_EXPIRED_BATCH: Final = 500
_INTERRUPTED: Final = "interrupted: the process that sent it has ended; it may have arrived"


@dataclass(frozen=True, slots=True)
class _Turn:
    """The right to send one event now."""

    token: UUID
    event: Event


class _Permit:
    """One of the threads for destinations that are not proven, while it is held."""

    _free = threading.BoundedSemaphore(_UNPROVEN_THREADS)

    def __init__(self) -> None:
        self._held = False

    def acquire(self) -> bool:
        self._held = self._held or self._free.acquire(blocking=False)
        return self._held

    def release(self) -> None:
        if self._held:
            self._free.release()


class _Work:
    """The leases of this process."""

    def __init__(self) -> None:
        self.stopping = False
        self.tokens: set[UUID] = set()


_work = _Work()


def due(limit: int) -> list[int]:
    """Ids of at most `limit` subscriptions with something to do that nobody does, the longest due first."""
    with short_read():
        free = Q(lease_until=None) | Q(lease_until__lte=Now())
        waiting = Subscription.objects.filter(free, next_attempt_at__lte=Now()).order_by("next_attempt_at")
        return list(waiting.values_list("pk", flat=True)[:limit])


def relay_once(limit: int = 500) -> int:
    """Send messages for streams that are due, the longest due first; how many. No more than `limit` are left unread at a time."""
    room = limit - backlog(wake.QUEUE)
    identities = due(room) if room > 0 else []
    for identity in identities:
        wake.deliverer(identity)
    return len(identities)


def drain(subscription_id: int) -> None:
    """Send what is due of this stream, unless somebody else does or its destination has no room.

    May be called at any time, by any number of processes. Raises what the database raises; the lease then runs out.
    """
    permit = _Permit()
    token = uuid4()
    _work.tokens.add(token)
    try:
        turn = _take_up(subscription_id, token, permit)
        if turn is None:
            return
        stop_at = time.monotonic() + _MOST_SECONDS
        sent = 0
        while turn is not None:
            event = turn.event
            outcome = _attempt(event)
            sent += 1
            tired = sent == _MOST_ATTEMPTS or time.monotonic() > stop_at or _work.stopping
            turn = _record(turn, outcome, tired, permit)
        if event.subscription.destination.waiting:  # there is room now
            destinations.wake_waiting(event.subscription.destination_id)
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


def _take_up(subscription_id: int, token: UUID, permit: _Permit) -> _Turn | None:
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
            _account_for_interrupted(subscription)
            subscription.lease_token = None
        return _proceed(subscription, now, token, permit)


def _record(turn: _Turn, outcome: Outcome, tired: bool, permit: _Permit) -> _Turn | None:
    """Commit an attempt with all its consequences; what is to be sent next. None: nothing now, or not by us."""
    event = turn.event
    with short_transaction():
        found = _locked(event.subscription_id)
        if found is None or found[0].lease_token != turn.token:
            return None
        subscription, now = found
        event.subscription = subscription
        _learn(subscription, turn.token, outcome)
        _settle(event, now, outcome)
        return _proceed(subscription, now, turn.token, permit, tired=tired)


def _locked(pk: int) -> tuple[Subscription, datetime] | None:
    """The row, locked, with its destination as it was a moment ago, and the database's time.

    It is asked for by its key alone: a planner that knew of other conditions might find a partial index tempting.
    """
    rows = Subscription.objects.select_for_update(of=("self",)).select_related("destination").annotate(now=Now())
    subscription = rows.filter(pk=pk).first()
    return None if subscription is None else (subscription, subscription.now)


# -- what a stream does next ------------------------------------------------------------------------------


def _proceed(subscription: Subscription, now: datetime, token: UUID, permit: _Permit, *, tired: bool = False) -> _Turn | None:
    """The first pending event, where it is due and its destination has room; else when the stream is to be looked at again."""
    destination = subscription.destination
    event = _first_pending(subscription, now)
    if event is None:
        _rest(subscription, None)
    elif event.expires_at <= now:
        _rest(subscription, Now())
        wake.deliverer_on_commit(subscription.pk)
    elif event.next_attempt_at is not None and event.next_attempt_at > now:
        _rest(subscription, event.next_attempt_at)
    elif tired and not destination.waiting:
        _rest(subscription, Now())
        wake.deliverer_on_commit(subscription.pk)  # to the end of the queue: others wait, too
    elif tired or breaker.is_closed_to_all(destination, now):
        _wait(subscription, event)
    elif not breaker.is_proven(destination) and not permit.acquire():
        _rest(subscription, now + timedelta(seconds=random.uniform(*_UNPROVEN_PAUSE)))  # noqa: S311 - spreads load
    elif subscription.lease_token is None and not _enter(subscription, token):
        _wait(subscription, event)
    else:
        lease = {"lease_token": token, "lease_until": now + timedelta(seconds=LEASE_SECONDS), "sending": event.pk}
        _change(subscription, waiting_since=None, **lease)
        event.subscription = subscription
        return _Turn(token, event)
    return None


def _first_pending(subscription: Subscription, now: datetime) -> Event | None:
    """The first pending event. It is too old only where there are more of these than are buried at a time."""
    pending = subscription.events.filter(state=Event.State.PENDING).order_by("sequence")
    event = pending.first()
    if event is not None and event.expires_at <= now:
        _bury_expired(subscription, now)
        event = pending.first()
    return event


def _enter(subscription: Subscription, token: UUID) -> bool:
    """Take a place at the destination. False: there is none."""
    destination, now = destinations.locked(subscription.destination_id)
    subscription.destination = destination
    if not breaker.room(destination, now, destinations.under_way(destination, now), destinations.most_at_once()):
        return False
    if breaker.enter(destination, now, token):
        destination.save(update_fields=destinations.STATE)
    return True


def _wait(subscription: Subscription, event: Event) -> None:
    """Until there is room at the destination, or the event is too old."""
    _rest(subscription, event.expires_at, waiting_since=Coalesce("waiting_since", Now()))
    if not subscription.destination.waiting:
        type(subscription.destination).objects.filter(pk=subscription.destination_id).update(waiting=True)


def _rest(subscription: Subscription, next_attempt_at: datetime | Now | None, waiting_since: Coalesce | None = None) -> None:
    lease = {"lease_token": None, "lease_until": None, "sending": None}
    _change(subscription, next_attempt_at=next_attempt_at, waiting_since=waiting_since, **lease)


def _change(subscription: Subscription, **values: Any) -> None:
    Subscription.objects.filter(pk=subscription.pk).update(**values)


# -- an attempt and what comes of it ----------------------------------------------------------------------


def _attempt(event: Event) -> Outcome:
    """Send the frozen bytes, signed now. Holds no connection to the database."""
    subscription, body, identity = event.subscription, bytes(event.body), str(event.pk)
    envelope = Envelope(
        id=identity,
        source=event.source,
        type=event.type,
        subject=subscription.subject,
        time=event.time,
        jobsequence=event.sequence,
    )
    headers = envelope.headers()
    if subscription.key is not None:
        headers |= signing.headers(subscription.key, identity, int(time.time()), body)
    return transport.send(subscription.url, headers, body)


def _learn(subscription: Subscription, token: UUID, outcome: Outcome) -> None:
    """Tell its destination, and leave it on the subscription as it now is."""
    most = destinations.most_at_once()
    if breaker.learns_nothing(subscription.destination, outcome, most):
        return
    destination, now = destinations.locked(subscription.destination_id)
    was_open = destination.open_until is not None
    breaker.learn(destination, now, token, outcome, most)
    destination.save(update_fields=destinations.STATE)
    subscription.destination = destination
    if (destination.open_until is not None) != was_open:
        transaction.on_commit(partial(_tell_of_breaker, destination.origin, not was_open))


def _settle(event: Event, now: datetime, outcome: Outcome) -> None:
    """Write the attempt down, and what becomes of its event."""
    answered = outcome.status is not None
    event.tries, event.silences = event.tries + answered, 0 if answered else event.silences + 1
    subscription = event.subscription
    refused = subscription.bulk_refused
    verdict = policy.judge(outcome, type_=event.type, tries=event.tries, silences=event.silences, bulk_refused=refused)
    Attempt.objects.create(
        event=event,
        time=outcome.time,
        status=outcome.status,
        latency_ms=outcome.latency_ms,
        error=outcome.error,
        answer=outcome.answer,
    )
    if isinstance(verdict, Retry):
        event.next_attempt_at = min(now + timedelta(seconds=verdict.seconds), event.expires_at)
    else:
        event.state = Event.State.DEAD if isinstance(verdict, Dead) else Event.State.DELIVERED
        event.next_attempt_at, event.settled_at = None, now
        if policy.is_bulk(event.type) and refused != isinstance(verdict, Dead):
            _change(subscription, bulk_refused=not refused)
    event.save(update_fields=["tries", "silences", "state", "next_attempt_at", "settled_at"])
    if isinstance(verdict, Dead):
        transaction.on_commit(partial(_tell_of_dead, event, outcome.error))


def _account_for_interrupted(subscription: Subscription) -> None:
    """A lease that ran out: whoever held it did not live to write its attempt down."""
    if subscription.sending is None or subscription.lease_until is None:
        return
    event = subscription.events.filter(pk=subscription.sending, state=Event.State.PENDING).only("pk").first()
    if event is not None:
        began = subscription.lease_until - timedelta(seconds=LEASE_SECONDS)
        Attempt.objects.create(event=event, time=began, status=None, latency_ms=0, error=_INTERRUPTED)


def _bury_expired(subscription: Subscription, now: datetime) -> None:
    """Mark some of the events dead whose time is over; those that waited behind them for all of it go with them."""
    pending = subscription.events.filter(state=Event.State.PENDING, expires_at__lte=now)
    expired = list(pending.order_by("sequence").defer("body")[:_EXPIRED_BATCH])
    Event.objects.filter(pk__in=[event.pk for event in expired]).update(
        state=Event.State.DEAD, next_attempt_at=None, settled_at=now
    )
    if any(policy.is_bulk(event.type) for event in expired):
        _change(subscription, bulk_refused=True)
    for event in expired:
        transaction.on_commit(partial(_tell_of_dead, event, "too old"))


def _tell_of_dead(event: Event, error: str) -> None:
    extra = {"event": str(event.pk), "type": event.type, "job": event.subscription.subject}
    logger.warning("an event died undelivered: %s", error, extra=extra)


def _tell_of_breaker(origin: str, opened: bool) -> None:
    logger.warning("the breaker %s", "opened" if opened else "closed", extra={"destination": origin})
