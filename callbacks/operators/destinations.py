"""What operators see of destinations and do about them: pause, resume and reset."""

import sys
from contextlib import suppress
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from callbacks.delivery import destination_queue, destination_rows
from callbacks.models import Destination, Event, Subscription
from callbacks.rules import destination_breaker
from callbacks.rules.destination_breaker import BreakerState
from orchestrator_site.base.db.transactions import short_transaction
from orchestrator_site.base.egress.http_client import EgressDenied, origin_of

MAX_WAITING_COUNTED: Final = 10_000
_BATCH: Final = 500


class Load(NamedTuple):
    """The current load of a destination."""

    in_flight: int  # deliveries
    waiting: int  # streams, counted up to `MAX_WAITING_COUNTED`


def load(destination: Destination) -> Load:
    """Count the deliveries in flight to a destination and the streams that wait for it."""
    waiting = destination_queue.waiting_streams(destination)[:MAX_WAITING_COUNTED]
    return Load(destination_rows.in_flight(destination, Now()), waiting.count())


def max_in_flight(destination: Destination) -> int:
    """Return how many deliveries it may get at once while its breaker is closed."""
    return destination_breaker.max_in_flight(destination, destination_rows.max_in_flight())


def condition(destination: Any) -> str:
    """Return in a word or two whether and how deliveries go to a destination (from `destination_rows.with_database_time`)."""
    if destination.paused:
        return "paused"
    if destination.throttled_until is not None and destination.throttled_until > destination.now:
        return "throttled"
    if destination.limited_until is not None and destination.limited_until > destination.now:
        return "at its limit"
    state = destination_breaker.state(destination, destination.now)
    if state != BreakerState.CLOSED:
        return f"breaker {state.replace('_', ' ')}"
    return "slow" if destination_breaker.is_slow(destination) else "healthy"


# Unused destinations are deleted, so one that is looked at may be gone when it is acted on: then these return False.


def named(text: str) -> Q:
    """Return the condition for destinations of a URL, or of hosts whose name begins with some text."""
    condition = Q()
    for scheme in ("", "http://", "https://"):
        condition |= _begins_with(f"{scheme}{text.lower()}")
    with suppress(EgressDenied):
        condition |= Q(origin=origin_of(text))
    return condition


def _begins_with(text: str) -> Q:
    if connection.vendor == "postgresql":
        return Q(origin__startswith=text)  # reads the index for LIKE that Django makes
    return Q(origin__gte=text, origin__lt=f"{text}{chr(sys.maxunicode)}")  # SQLite reads no index for LIKE


def pause(pk: int) -> bool:
    """Send nothing more to the destination; deliveries in flight may finish. Its events still expire."""
    return bool(Destination.objects.filter(pk=pk).update(paused=True))


def resume(pk: int) -> bool:
    """Send to a paused destination again, the longest waiting streams first."""
    exists = bool(Destination.objects.filter(pk=pk).update(paused=False))
    destination_queue.wake_waiting(pk)
    return exists


def reset(pk: int) -> bool:
    """Mark the destination as healthy: close its breaker, forget 429s and slow answers, retry unanswered events now."""
    with transaction.atomic():
        try:
            destination, _ = destination_rows.lock(pk)
        except Destination.DoesNotExist:
            return False
        destination_breaker.reset(destination)
        destination.save(update_fields=destination_rows.BREAKER_FIELDS)
    _retry_unanswered(pk)
    destination_queue.wake_waiting(pk)
    return True


def _retry_unanswered(pk: int) -> None:
    """Make streams due whose last attempt got no answer. The relay finds them."""
    last = 0
    while True:
        with short_transaction():
            later = Subscription.objects.filter(destination=pk, waiting_since=None, next_attempt_at__gt=Now(), pk__gt=last)
            # Locked in order, so that two resets at once cannot deadlock.
            streams = list(later.select_for_update().order_by("pk").values_list("pk", flat=True)[:_BATCH])
            unanswered = Event.objects.filter(subscription__in=streams, state=Event.State.PENDING, silences__gt=0)
            unanswered.update(next_attempt_at=None)
            Subscription.objects.filter(pk__in=streams).update(next_attempt_at=Now())
        if len(streams) < _BATCH:
            return
        last = streams[-1]
