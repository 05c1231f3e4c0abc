"""What an attempt means for its event and for its destination, written down. Called with the stream's row locked."""

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from django.db import transaction

from callbacks.delivery import destination_queue
from callbacks.models import Attempt, Event, Subscription
from callbacks.rules import destination_breaker, event_verdict
from callbacks.rules.event_verdict import Dead, Retry
from callbacks.rules.outcome import Outcome

logger = logging.getLogger(__name__)

_EXPIRED_BATCH: Final = 500
_INTERRUPTED: Final = "interrupted: the process that sent it has ended; it may have arrived"


def learn(subscription: Subscription, token: UUID, outcome: Outcome) -> None:
    """Tell its destination, and leave it on the subscription as it now is."""
    most = destination_queue.most_at_once()
    if destination_breaker.learns_nothing(subscription.destination, outcome, most):
        return
    destination, now = destination_queue.locked(subscription.destination_id)
    was_open = destination.open_until is not None
    destination_breaker.learn(destination, now, token, outcome, most)
    destination.save(update_fields=destination_queue.STATE)
    subscription.destination = destination
    if (destination.open_until is not None) != was_open:
        transaction.on_commit(partial(_tell_of_breaker, destination.origin, not was_open))


def settle(event: Event, now: datetime, outcome: Outcome) -> None:
    """Write the attempt down, and what becomes of its event."""
    answered = outcome.status is not None
    event.tries, event.silences = event.tries + answered, 0 if answered else event.silences + 1
    subscription = event.subscription
    refused = subscription.bulk_refused
    verdict = event_verdict.judge(outcome, type_=event.type, tries=event.tries, silences=event.silences, bulk_refused=refused)
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
        if event_verdict.is_bulk(event.type) and refused != isinstance(verdict, Dead):
            Subscription.objects.filter(pk=subscription.pk).update(bulk_refused=not refused)
    event.save(update_fields=["tries", "silences", "state", "next_attempt_at", "settled_at"])
    if isinstance(verdict, Dead):
        transaction.on_commit(partial(_tell_of_dead, event, outcome.error))


def account_for_interrupted(subscription: Subscription) -> None:
    """A lease that ran out: whoever held it did not live to write its attempt down."""
    if subscription.sending is None or subscription.sending_since is None:
        return
    event = subscription.events.filter(pk=subscription.sending, state=Event.State.PENDING).only("pk").first()
    if event is not None:
        Attempt.objects.create(event=event, time=subscription.sending_since, latency_ms=0, error=_INTERRUPTED)


def bury_expired(subscription: Subscription, now: datetime) -> None:
    """Mark some of the events dead whose time is over; those that waited behind them for all of it go with them."""
    pending = subscription.events.filter(state=Event.State.PENDING, expires_at__lte=now)
    expired = list(pending.order_by("sequence").defer("body")[:_EXPIRED_BATCH])
    Event.objects.filter(pk__in=[event.pk for event in expired]).update(
        state=Event.State.DEAD, next_attempt_at=None, settled_at=now
    )
    if any(event_verdict.is_bulk(event.type) for event in expired):
        Subscription.objects.filter(pk=subscription.pk).update(bulk_refused=True)
    for event in expired:
        transaction.on_commit(partial(_tell_of_dead, event, "too old"))


def _tell_of_dead(event: Event, error: str) -> None:
    extra = {"event": str(event.pk), "type": event.type, "job": event.subscription.subject}
    logger.warning("an event died undelivered: %s", error, extra=extra)


def _tell_of_breaker(origin: str, opened: bool) -> None:
    logger.warning("the breaker %s", "opened" if opened else "closed", extra={"destination": origin})
