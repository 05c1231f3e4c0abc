"""The queue of streams for each destination, and what an operator may do about one.

A stream that finds no room at its destination waits for it, the longest waiting first: for the place that a delivery
leaves (`callbacks.delivery.stream_delivery` hands it on), or for the relay, which wakes it when the destination's time has come.
So a thousand streams for a dead host cost nothing while it is dead.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now

from callbacks import delivery_hints
from callbacks.models import Destination, Event, Subscription
from callbacks.rules import destination_breaker
from orchestrator_site.base.db.transactions import short_read, short_transaction

_TOUCHED_EVERY: Final = timedelta(hours=1)
_UNUSED_AFTER: Final = timedelta(days=1)
_BATCH: Final = 500
STATE: Final[tuple[str, ...]] = (  # what `destination_breaker` changes of a row
    "failures",
    "openings",
    "open_until",
    "probe_token",
    "probe_until",
    "throttles",
    "throttled_until",
    "window",
    "slowness",
)


def most_at_once() -> int:
    most: int = settings.CONFIGURATION.deliveries_per_host
    return most


def find(origin: str) -> Destination:
    """The row for an origin, to be used in this transaction: it is not forgotten before that ends."""
    while True:
        destination, made = Destination.objects.get_or_create(origin=origin, defaults={"used_at": Now()})
        row = Destination.objects.filter(pk=destination.pk)
        if made or row.filter(used_at__gt=Now() - _TOUCHED_EVERY).exists() or row.update(used_at=Now()):
            return destination


def timed(rows: QuerySet[Destination] | None = None) -> QuerySet[Any]:
    """The rows (without any: all), each with the database's time as `now`: what they say of times is by that clock."""
    return (Destination.objects.all() if rows is None else rows).annotate(now=Now())


def locked(pk: int) -> tuple[Destination, datetime]:
    """The row, locked, and the database's time. Whoever locks a subscription as well has done that before."""
    destination = timed().select_for_update().get(pk=pk)
    return destination, destination.now


def under_way(destination: Destination, now: datetime | Now) -> int:
    """How many deliveries it gets at this moment. Exact while its row is locked."""
    return destination.subscriptions.filter(lease_token__isnull=False, lease_until__gt=now).count()


class Load(NamedTuple):
    under_way: int
    waiting: int


def load(destination: Destination, most: int) -> Load:
    """Its deliveries at this moment, and the streams that wait for it, counted up to `most`."""
    return Load(under_way(destination, Now()), _waiting(destination).order_by("waiting_since")[:most].count())


# -- the queue ----------------------------------------------------------------------------------------


def wake_waiting(pk: int) -> None:
    """Make as many of its waiting streams due as there is room for. Nothing where it has been forgotten."""
    most = most_at_once()
    asleep: list[int] = []
    with suppress(Destination.DoesNotExist), short_transaction():
        destination, now = locked(pk)
        # Those that are woken already, and not taken up yet, have waited longest: they come first.
        first = list(_waiting(destination).order_by("waiting_since").values_list("pk", "next_attempt_at")[: 2 * most])
        asleep = [stream for stream, due_at in first if due_at is not None and due_at > now]
        woken = len(first) - len(asleep)
        room = destination_breaker.room(destination, now, under_way(destination, now) + woken, most)
        del asleep[room:]
        if not first and destination.waiting:
            Destination.objects.filter(pk=pk).update(waiting=False)
    with short_read():
        for stream in asleep:
            Subscription.objects.filter(pk=stream, waiting_since__isnull=False).update(next_attempt_at=Now())
            delivery_hints.deliverer(stream)


def begin_queue(pk: int) -> None:
    """Mark in this transaction that a stream waits, and have the others that are due join it once that is committed."""
    Destination.objects.filter(pk=pk).update(waiting=True)
    transaction.on_commit(partial(line_up, pk), robust=True)


def line_up(pk: int) -> None:
    """Have the streams that are due wait as well, in the order in which they were: each would find out by itself."""
    pending = Event.objects.filter(subscription=OuterRef("pk"), state=Event.State.PENDING).order_by("sequence")
    while True:
        with short_transaction():
            due = Subscription.objects.select_for_update(skip_locked=True).filter(
                destination=pk, next_attempt_at__lte=Now(), lease_token=None, waiting_since=None
            )
            streams = list(due.order_by("next_attempt_at").values_list("pk", flat=True)[:_BATCH])
            expiry = Coalesce(Subquery(pending.values("expires_at")[:1]), Now())
            Subscription.objects.filter(pk__in=streams).update(waiting_since=F("next_attempt_at"), next_attempt_at=expiry)
        if len(streams) < _BATCH:
            return


def wake_available() -> None:
    """Do that for every destination whose time has come, the longest closed first."""
    with short_read():
        ready = Destination.objects.filter(
            Q(open_until=None) | Q(open_until__lte=Now()),
            Q(probe_until=None) | Q(probe_until__lte=Now()),
            Q(throttled_until=None) | Q(throttled_until__lte=Now()),
            waiting=True,
            paused=False,
        )
        identities = list(ready.order_by(F("open_until").asc(nulls_last=True)).values_list("pk", flat=True)[:_BATCH])
    for identity in identities:
        wake_waiting(identity)


def mark_waiting() -> None:
    """Mark destinations that streams wait for. One that began to wait just as the mark was taken away finds itself here."""
    with short_read():
        forgotten = Subscription.objects.filter(waiting_since__isnull=False, destination__waiting=False)
        Destination.objects.filter(pk__in=forgotten.values("destination")).update(waiting=True)


def _waiting(destination: Destination) -> QuerySet[Subscription]:
    return destination.subscriptions.filter(waiting_since__isnull=False)


# -- for operators --------------------------------------------------------------------------------------


def pause(pk: int) -> None:
    """Send nothing there any more; what is under way ends. Events still die at their age."""
    Destination.objects.filter(pk=pk).update(paused=True)


def resume(pk: int) -> None:
    Destination.objects.filter(pk=pk).update(paused=False)
    wake_waiting(pk)


def reset(pk: int) -> None:
    """Take it for well: close its breaker, forget what it asked for, and try at once what it left unanswered."""
    with transaction.atomic():
        destination, _ = locked(pk)
        destination_breaker.close(destination)
        destination.throttles, destination.throttled_until, destination.slowness = 0, None, 0
        destination.save(update_fields=STATE)
    _try_unanswered(pk)
    wake_waiting(pk)


def _try_unanswered(pk: int) -> None:
    """Make streams due that wait for another try because there was no answer. The relay finds them."""
    last = 0
    while True:
        with short_transaction():
            later = Subscription.objects.filter(destination=pk, waiting_since=None, next_attempt_at__gt=Now(), pk__gt=last)
            # In order, so that two who do this at once do not wait for one another.
            streams = list(later.select_for_update().order_by("pk").values_list("pk", flat=True)[:_BATCH])
            silent = Event.objects.filter(subscription__in=streams, state=Event.State.PENDING, silences__gt=0)
            silent.update(next_attempt_at=None)
            Subscription.objects.filter(pk__in=streams).update(next_attempt_at=Now())
        if len(streams) < _BATCH:
            return
        last = streams[-1]


def forget_unused() -> int:
    """Delete some that no stream goes to any more; how many. Paused ones stay."""
    streams = Subscription.objects.filter(destination=OuterRef("pk"))
    old = Destination.objects.filter(~Exists(streams), paused=False, used_at__lt=Now() - _UNUSED_AFTER)
    with short_transaction():
        # Locked, so that `find`, which would have to move `used_at` first, makes a new one rather than use one of these.
        unused = list(old.select_for_update(of=("self",)).values_list("pk", flat=True)[:_BATCH])
        Destination.objects.filter(pk__in=unused).delete()
    return len(unused)
