"""Sends the events of one stream, in order, and remembers what came of it.

Whoever drains a stream holds a lease on it: a token and an end by the database's clock. Each attempt and its
consequences are one transaction, refused where the token is not ours any more. So a process that dies between the
sending and that transaction leaves an event that is sent again under the same id, and never a stream that nobody takes up.
"""

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from callbacks import policy, signing, transport
from callbacks.cloudevents import Envelope
from callbacks.models import Attempt, Event, Subscription
from callbacks.outbox import ACTOR, QUEUE
from callbacks.policy import Dead, Retry
from callbacks.transport import Outcome
from orchestrator_site.broker import backlog, hint
from orchestrator_site.database import short_read

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 45.0  # an attempt takes 15 at most
# A thread goes on to another stream after so much of one.
_MOST_ATTEMPTS: Final = 50
_MOST_SECONDS: Final = 10.0
_EXPIRED_BATCH: Final = 500
_NO_LEASE: Final = {"lease_token": None, "lease_until": None}


@dataclass(frozen=True, slots=True)
class _Lease:
    subscription_id: int
    token: UUID


def due(limit: int) -> list[int]:
    """Ids of at most `limit` subscriptions with something to do that nobody does, the longest due first."""
    with short_read():
        waiting = Subscription.objects.filter(_is_due()).order_by("next_attempt_at")
        return list(waiting.values_list("pk", flat=True)[:limit])


def relay_once(limit: int = 500) -> int:
    """Send messages for streams that are due, the longest due first; how many. No more than `limit` are left unread at a time."""
    room = limit - backlog(QUEUE)
    identities = due(room) if room > 0 else []
    for identity in identities:
        hint(QUEUE, ACTOR, identity)
    return len(identities)


def drain(subscription_id: int) -> bool:
    """Send what is due of this stream, unless somebody else does. True: there is more, ask again.

    May be called at any time, by any number of processes. Raises what the database raises; the lease then runs out.
    """
    with short_read():
        lease = _claim(subscription_id)
        event = _next_event(lease) if lease else None
    stop_at = time.monotonic() + _MOST_SECONDS
    sent = 0
    while lease is not None and event is not None:
        if sent == _MOST_ATTEMPTS or time.monotonic() > stop_at:
            with short_read():
                return _give_back(lease)
        outcome = _attempt(event)
        sent += 1
        with short_read():
            event = _next_event(lease) if _record(lease, event, outcome) else None
    return False


def _is_due() -> Q:
    return Q(next_attempt_at__lte=Now()) & (Q(lease_until=None) | Q(lease_until__lte=Now()))


def _claim(subscription_id: int) -> _Lease | None:
    token = uuid4()
    claimed = Subscription.objects.filter(_is_due(), pk=subscription_id).update(
        lease_token=token, lease_until=Now() + timedelta(seconds=LEASE_SECONDS)
    )
    return _Lease(subscription_id, token) if claimed else None


def _give_back(lease: _Lease) -> bool:
    """End the lease with work left; whether it was still ours."""
    return bool(_ours(lease).update(**_NO_LEASE))


def _ours(lease: _Lease) -> QuerySet[Subscription]:
    return Subscription.objects.filter(pk=lease.subscription_id, lease_token=lease.token)


def _next_event(lease: _Lease) -> Event | None:
    """The event to be sent now. None: none is (then the lease has been given back), or the lease is lost."""
    while True:
        # Its revision is read before the events: one that is published in between has moved it.
        subscription = _ours(lease).annotate(now=Now()).first()
        if subscription is None:
            return None
        event = subscription.events.filter(state=Event.State.PENDING).order_by("sequence").first()
        if event is None:
            if _ours(lease).filter(revision=subscription.revision).update(next_attempt_at=None, **_NO_LEASE):
                return None
        elif event.expires_at <= subscription.now:
            _bury_expired(lease)
        elif event.next_attempt_at is not None and event.next_attempt_at > subscription.now:
            _ours(lease).update(next_attempt_at=event.next_attempt_at, **_NO_LEASE)
            return None
        else:
            event.subscription = subscription
            return event


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


def _record(lease: _Lease, event: Event, outcome: Outcome) -> bool:
    """Commit an attempt with all its consequences. False: the stream has to wait now, or is not ours any more."""
    answered = outcome.status is not None
    tries, silences = event.tries + answered, 0 if answered else event.silences + 1
    with transaction.atomic():
        subscription = _ours(lease).select_for_update().only("bulk_refused").annotate(now=Now()).first()
        if subscription is None:
            return False
        verdict = policy.judge(outcome, type_=event.type, tries=tries, silences=silences, bulk_refused=subscription.bulk_refused)
        Attempt.objects.create(
            event=event,
            time=outcome.time,
            status=outcome.status,
            latency_ms=outcome.latency_ms,
            error=outcome.error,
            answer=outcome.answer,
        )
        row = Event.objects.filter(pk=event.pk)
        if isinstance(verdict, Retry):
            due_at = min(subscription.now + timedelta(seconds=verdict.seconds), event.expires_at)
            row.update(tries=tries, silences=silences, next_attempt_at=due_at)
            _ours(lease).update(next_attempt_at=due_at, **_NO_LEASE)
            return False
        dead = isinstance(verdict, Dead)
        row.update(
            tries=tries,
            silences=silences,
            next_attempt_at=None,
            settled_at=Now(),
            state=Event.State.DEAD if dead else Event.State.DELIVERED,
        )
        _ours(lease).update(
            lease_until=Now() + timedelta(seconds=LEASE_SECONDS),
            bulk_refused=dead if policy.is_bulk(event.type) else subscription.bulk_refused,
        )
    if dead:
        _tell_of_dead(event, outcome.error)
    return True


def _bury_expired(lease: _Lease) -> None:
    """Mark some of the events dead whose time is over; those that waited behind them for all of it go with them."""
    with transaction.atomic():
        subscription = _ours(lease).select_for_update().only("pk").first()
        if subscription is None:
            return
        expired = list(
            subscription.events.filter(state=Event.State.PENDING, expires_at__lte=Now())
            .order_by("sequence")
            .defer("body")[:_EXPIRED_BATCH]
        )
        Event.objects.filter(pk__in=[event.pk for event in expired]).update(
            state=Event.State.DEAD, next_attempt_at=None, settled_at=Now()
        )
        if any(policy.is_bulk(event.type) for event in expired):
            _ours(lease).update(bulk_refused=True)
        _ours(lease).update(lease_until=Now() + timedelta(seconds=LEASE_SECONDS))
    for event in expired:
        _tell_of_dead(event, "too old")


def _tell_of_dead(event: Event, error: str) -> None:
    logger.warning("an event died undelivered: %s", error, extra={"event": str(event.pk), "type": event.type})
