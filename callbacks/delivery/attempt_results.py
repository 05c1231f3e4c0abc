"""Records what attempts mean for their events and for their destinations. The caller has locked the rows of the streams."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from django.db import transaction

from callbacks.delivery import destination_rows
from callbacks.delivery.stream_rows import LockedStreams
from callbacks.models import Attempt, Destination, Event, Subscription
from callbacks.rules import destination_breaker, event_verdict
from callbacks.rules.event_verdict import Dead, Retry
from callbacks.rules.outcome import Outcome
from orchestrator_site.base import measurements
from orchestrator_site.base.db.statements import insert_rows, update_rows
from orchestrator_site.base.intervals import DeliveryIntervals

logger = logging.getLogger(__name__)

_EXPIRED_BATCH: Final = 500
_INTERRUPTED: Final = "interrupted: the process that sent it has ended; it may have arrived"
_ATTEMPT: Final = ("event", "time", "status", "latency_ms", "error", "answer")


def changes_destination(
    destination: Destination, now: datetime, token: UUID, outcome: Outcome | None, intervals: DeliveryIntervals
) -> bool:
    """Return True if the outcome of the delivery `token` (None if nothing was sent) changes its destination, or may do so later.

    Namely when its stream is the first to be parked there.
    """
    if destination_breaker.is_blocked(destination, now) and not destination.waiting:
        return True
    if outcome is None:
        return destination.probe_token == token
    return not destination_breaker.is_unchanged_by(destination, outcome, destination_rows.max_in_flight(), intervals)


def update_destination(
    destination: Destination, now: datetime, outcomes: Iterable[tuple[UUID, Outcome | None]], intervals: DeliveryIntervals
) -> None:
    """Apply the outcomes of deliveries, each with its token, to their destination, whose row the caller has locked."""
    limit, was_open = destination_rows.max_in_flight(), destination.open_until is not None
    for token, outcome in outcomes:
        if outcome is None:
            destination_breaker.give_up_probe(destination, token)
        else:
            destination_breaker.record(destination, now, token, outcome, limit, intervals)
    destination.save(update_fields=destination_rows.BREAKER_FIELDS)
    if (destination.open_until is not None) != was_open:
        transaction.on_commit(partial(_log_breaker, destination.origin, not was_open))


def record_attempts(attempts: Sequence[tuple[Event, Outcome]], rows: LockedStreams, intervals: DeliveryIntervals) -> None:
    """Store the attempts, and mark their events as delivered, dead or due later. The caller saves the streams."""
    judged = [_judge(event, rows.streams[event.subscription_id], rows.now, outcome, intervals) for event, outcome in attempts]
    insert_rows(Attempt, [_attempt(event, outcome) for event, outcome in attempts], _ATTEMPT)
    update_rows(Event, judged, _Judged._fields[1:])
    transaction.on_commit(partial(_count, [outcome for _, outcome in attempts], judged))


class _Judged(NamedTuple):
    """What an attempt changes of its event: not the event itself, because the transaction may be repeated."""

    id: UUID
    tries: int
    silences: int
    state: str
    next_attempt_at: datetime | None
    settled_at: datetime | None


def _judge(event: Event, stream: Subscription, now: datetime, outcome: Outcome, intervals: DeliveryIntervals) -> _Judged:
    answered = outcome.status is not None
    tries, silences = event.tries + answered, 0 if answered else event.silences + 1
    verdict = event_verdict.judge(
        outcome, intervals, type_=event.type, tries=tries, unanswered=silences, best_effort_refused=stream.bulk_refused
    )
    if isinstance(verdict, Retry):
        retry_at = min(now + timedelta(seconds=verdict.seconds), event.expires_at)
        return _Judged(event.pk, tries, silences, Event.State.PENDING, retry_at, None)
    is_dead = isinstance(verdict, Dead)
    if event_verdict.is_best_effort(event.type):
        stream.bulk_refused = is_dead
    if is_dead:
        transaction.on_commit(partial(_log_dead, event, outcome.error))
    return _Judged(event.pk, tries, silences, Event.State.DEAD if is_dead else Event.State.DELIVERED, None, now)


def _attempt(event: Event, outcome: Outcome) -> Attempt:
    return Attempt(
        event=event,
        time=outcome.time,
        status=outcome.status,
        latency_ms=outcome.latency_ms,
        error=outcome.error,
        answer=outcome.answer,
    )


def record_interrupted_attempt(subscription: Subscription) -> None:
    """Store the attempt that was under way when the stream's lease expired: its process ended before it could.

    Of a run it is that of the first event. Whether the others were sent is not known.
    """
    if subscription.sending is None or subscription.sending_since is None:
        return
    event = subscription.events.filter(pk=subscription.sending, state=Event.State.PENDING).only("pk").first()
    if event is not None:
        Attempt.objects.create(event=event, time=subscription.sending_since, latency_ms=0, error=_INTERRUPTED)
        transaction.on_commit(measurements.attempt_interrupted)


def mark_expired_dead(subscription: Subscription, now: datetime) -> None:
    """Mark a batch of expired events as dead, including events that were never tried because earlier ones were not delivered."""
    pending = subscription.events.filter(state=Event.State.PENDING, expires_at__lte=now)
    expired = list(pending.order_by("sequence").defer("body")[:_EXPIRED_BATCH])
    Event.objects.filter(pk__in=[event.pk for event in expired]).update(
        state=Event.State.DEAD, next_attempt_at=None, settled_at=now
    )
    if any(event_verdict.is_best_effort(event.type) for event in expired):
        subscription.bulk_refused = True
    for event in expired:
        transaction.on_commit(partial(_log_dead, event, "expired"))
    transaction.on_commit(partial(measurements.events_died, len(expired)))


def _count(outcomes: Sequence[Outcome], judged: Sequence[_Judged]) -> None:
    for outcome in outcomes:
        measurements.event_attempted(outcome.status, outcome.latency_ms / 1000)
    measurements.events_died(sum(event.state == Event.State.DEAD for event in judged))


def _log_dead(event: Event, error: str) -> None:
    extra = {"event": str(event.pk), "type": event.type, "job": event.subscription.subject}
    logger.warning("an event is dead: %s", error, extra=extra)


def _log_breaker(origin: str, opened: bool) -> None:
    logger.warning("breaker %s", "opened" if opened else "closed", extra={"destination": origin})
