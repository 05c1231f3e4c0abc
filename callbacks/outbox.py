"""The interface of this app: publishers store events here, in the transaction of the change that an event reports.

A stream is identified by a UUID and has at most one subscriber. Events of a stream without one are not stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, Value
from django.db.models.functions import Concat, Now
from django.utils import timezone

from callbacks import delivery_hints, outbox_rows
from callbacks.cloudevents import Envelope, timestamp
from callbacks.delivery import destination_rows
from callbacks.models import Event, Owner, OwnerKind, Subscription, new_event_id
from orchestrator_site.base.db.statements import Statement
from orchestrator_site.base.db.transactions import delete_in_batches
from orchestrator_site.base.egress.http_client import origin_of
from orchestrator_site.base.intervals import DeliveryIntervals


def subscription(
    stream: UUID,
    subject: str,
    url: str,
    types: Sequence[str] = (),
    *,
    owner: str = "",
    client: str = "",
    keys: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> list[Statement]:
    """Return the statements after which the events of `stream` are sent to `url`, to be executed in one transaction.

    Args:
        stream: A stream without a subscriber.
        subject: The subject of its events.
        url: Where they are sent.
        types: The types to send; empty for all.
        owner: A namespace; the events of all its streams count towards one limit.
        client: The public name of a key; the same.
        keys: None, one, or the new key and the one that it replaces; each of them signs each event.
        headers: Sent with each event.

    Raises:
        EgressDenied: `url` is not an http(s) URL.
    """
    key, previous_key = (*keys, None, None)[:2]
    values = {
        "stream": stream,
        "subject": subject,
        "owner": owner,
        "client": client,
        "url": url,
        "key": key,
        "previous_key": previous_key,
        "headers": dict(headers) if headers else None,
        "types": sorted(set(types)),
    }
    origin = origin_of(url)
    return [*destination_rows.registration(origin), outbox_rows.subscription(values, origin)]


@dataclass(frozen=True, slots=True)
class Subscriber:
    """What `subscription` was called with for a stream, secrets included."""

    url: str = field(repr=False)
    types: tuple[str, ...]
    keys: tuple[str, ...] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


def subscriber(stream: UUID) -> Subscriber | None:
    """Return the subscriber of a stream, for another stream that is to have the same one; None if it has none."""
    row = Subscription.objects.filter(stream=stream).first()
    if row is None:
        return None
    keys = tuple(key for key in (row.key, row.previous_key) if key is not None)
    return Subscriber(row.url, tuple(row.types), keys, row.headers or {})


def client_of(stream: UUID) -> str:
    """Return the `client` of a stream, for another stream whose events are to count towards the same limit."""
    return Subscription.objects.filter(stream=stream).values_list("client", flat=True).first() or ""


def publish(
    stream: UUID, type_: str, source: str, data: Mapping[str, Any], intervals: DeliveryIntervals = DeliveryIntervals()
) -> None:
    """Store an event, to be sent once the caller's transaction is committed. Do nothing if no subscriber receives this type.

    Args:
        stream: The stream.
        type_: The CloudEvents `type`.
        source: The CloudEvents `source`.
        data: Its `data`; members may be `RawJson`.
        intervals: Contains the lifetime of an event.

    Raises:
        EventTooLarge: The event has more than 64 KiB.
        ValueError: `data` contains what JSON cannot express.
    """
    publish_all(stream, type_, source, [data], intervals)


def publish_all(
    stream: UUID, type_: str, source: str, data: Sequence[Mapping[str, Any]], intervals: DeliveryIntervals = DeliveryIntervals()
) -> None:
    """Store an event for each of `data`, in this order, with as many statements as for one; see `publish`."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("events are published in the transaction of the change that they report")
    place = outbox_rows.take_numbers(stream, type_, len(data), intervals.lifetime) if data else None
    if place is None:
        return
    time = timestamp(timezone.now())
    events = []
    for sequence, of_event in enumerate(data, place.first_sequence):
        envelope = Envelope(
            id=str(new_event_id()), source=source, type=type_, subject=place.subject, time=time, jobsequence=sequence
        )
        events.append((envelope, envelope.body(of_event)))
    outbox_rows.store(place.subscription, events, intervals.lifetime)
    if place.became_due:
        delivery_hints.send_on_commit()


def pending(stream: UUID, limit: int) -> int:
    """Return how many of the stream's events are still to be delivered, counting up to `limit`."""
    undelivered = Event.objects.filter(subscription__stream=stream, state=Event.State.PENDING)
    return undelivered.order_by("sequence")[:limit].count()


def is_limited(stream: UUID, intervals: DeliveryIntervals = DeliveryIntervals()) -> bool:
    """Return whether the stream's events are held up by a limit on what is sent per second, or were a moment ago."""
    lately = Now() - timedelta(seconds=intervals.burst / 2)
    key = Concat(Value(f"{OwnerKind.KEY} "), OuterRef("client"))
    namespace = Concat(Value(f"{OwnerKind.NAMESPACE} "), OuterRef("owner"))
    owners = Owner.objects.filter(Q(name=key) | Q(name=namespace), limited_until__gt=lately)
    limited = Q(destination__limited_until__gt=lately) | Exists(owners)
    return Subscription.objects.filter(limited, stream=stream).exists()


def forget(streams: Sequence[UUID], *, batch_size: int = 200) -> None:
    """Delete these streams with their events and attempts, `batch_size` events at a time."""
    for identity in list(Subscription.objects.filter(stream__in=streams).values_list("pk", flat=True)):
        subscription = Subscription.objects.filter(pk=identity)
        # A delivery in progress loses its lease, and no other starts: no row is added during the deletion.
        subscription.update(lease_token=None, lease_until=None, next_attempt_at=None, waiting_since=None)
        delete_in_batches(Event.objects.filter(subscription=identity), batch_size)
        subscription.delete()
