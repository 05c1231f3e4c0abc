"""Records what an attempt means for its event and for its destination. The caller has locked the stream's row."""

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from django.db import transaction

from callbacks.delivery import destination_rows
from callbacks.models import Attempt, Event, Subscription
from callbacks.rules import destination_breaker, event_verdict
from callbacks.rules.event_verdict import Dead, Retry
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.intervals import DeliveryIntervals

logger = logging.getLogger(__name__)

_EXPIRED_BATCH: Final = 500
_INTERRUPTED: Final = "interrupted: the process that sent it has ended; it may have arrived"


def update_destination(subscription: Subscription, token: UUID, outcome: Outcome, intervals: DeliveryIntervals) -> None:
    """Apply the outcome of the delivery `token` to its destination, and set the result on the subscription."""
    limit = destination_rows.max_in_flight()
    if destination_breaker.is_unchanged_by(subscription.destination, outcome, limit, intervals):
        return
    destination, now = destination_rows.lock(subscription.destination_id)
    was_open = destination.open_until is not None
    destination_breaker.record(destination, now, token, outcome, limit, intervals)
    destination.save(update_fields=destination_rows.BREAKER_FIELDS)
    subscription.destination = destination
    if (destination.open_until is not None) != was_open:
        transaction.on_commit(partial(_log_breaker, destination.origin, not was_open))


def record_attempt(event: Event, now: datetime, outcome: Outcome, intervals: DeliveryIntervals) -> None:
    """Store the attempt, and mark its event as delivered, dead or due later."""
    answered = outcome.status is not None
    event.tries, event.silences = event.tries + answered, 0 if answered else event.silences + 1
    subscription = event.subscription
    refused = subscription.bulk_refused
    verdict = event_verdict.judge(
        outcome, intervals, type_=event.type, tries=event.tries, unanswered=event.silences, best_effort_refused=refused
    )
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
        if event_verdict.is_best_effort(event.type) and refused != isinstance(verdict, Dead):
            Subscription.objects.filter(pk=subscription.pk).update(bulk_refused=not refused)
    event.save(update_fields=["tries", "silences", "state", "next_attempt_at", "settled_at"])
    if isinstance(verdict, Dead):
        transaction.on_commit(partial(_log_dead, event, outcome.error))


def record_interrupted_attempt(subscription: Subscription) -> None:
    """Store the attempt that was under way when the stream's lease expired: its process ended before it could."""
    if subscription.sending is None or subscription.sending_since is None:
        return
    event = subscription.events.filter(pk=subscription.sending, state=Event.State.PENDING).only("pk").first()
    if event is not None:
        Attempt.objects.create(event=event, time=subscription.sending_since, latency_ms=0, error=_INTERRUPTED)


def mark_expired_dead(subscription: Subscription, now: datetime) -> None:
    """Mark a batch of expired events as dead, including events that were never tried because earlier ones were not delivered."""
    pending = subscription.events.filter(state=Event.State.PENDING, expires_at__lte=now)
    expired = list(pending.order_by("sequence").defer("body")[:_EXPIRED_BATCH])
    Event.objects.filter(pk__in=[event.pk for event in expired]).update(
        state=Event.State.DEAD, next_attempt_at=None, settled_at=now
    )
    if any(event_verdict.is_best_effort(event.type) for event in expired):
        Subscription.objects.filter(pk=subscription.pk).update(bulk_refused=True)
    for event in expired:
        transaction.on_commit(partial(_log_dead, event, "expired"))


def _log_dead(event: Event, error: str) -> None:
    extra = {"event": str(event.pk), "type": event.type, "job": event.subscription.subject}
    logger.warning("an event is dead: %s", error, extra=extra)


def _log_breaker(origin: str, opened: bool) -> None:
    logger.warning("breaker %s", "opened" if opened else "closed", extra={"destination": origin})
