"""The seam: whoever has something to tell calls this, inside the transaction that makes it true.

A stream is named by a UUID and has at most one subscriber; what is published to a stream without one is kept nowhere.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from callbacks import delivery_hints
from callbacks.cloudevents import Envelope, timestamp
from callbacks.delivery import destination_rows
from callbacks.models import Event, Subscription, new_event_id
from orchestrator_site.base.db.transactions import delete_in_batches
from orchestrator_site.base.egress.http_client import origin_of
from orchestrator_site.base.intervals import DeliveryIntervals

_BATCH: Final = 200


def subscribe(
    stream: UUID,
    subject: str,
    url: str,
    types: Sequence[str] = (),
    *,
    keys: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send the events of `stream` to `url` from now on.

    Args:
        stream: Names the stream; it has no subscriber yet.
        subject: What the events are about.
        url: Where they are sent.
        types: The types to send; empty for all.
        keys: Sign each event: none, one, or the new key and the one that it replaces.
        headers: Sent with each event.

    Raises:
        EgressDenied: `url` is not an http(s) URL.
    """
    key, previous_key = (*keys, None, None)[:2]
    Subscription.objects.create(
        stream=stream,
        subject=subject,
        url=url,
        key=key,
        previous_key=previous_key,
        headers=dict(headers) if headers else None,
        destination=destination_rows.get_or_create(origin_of(url)),
        types=sorted(set(types)),
    )


def publish(
    stream: UUID, type_: str, source: str, data: Mapping[str, Any], intervals: DeliveryIntervals = DeliveryIntervals()
) -> None:
    """Keep an event, to be sent once the caller's transaction is committed. Nothing happens where nobody takes it.

    Raises `EventTooLarge` and ValueError as `Envelope.body` does.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("an event is published in the transaction of the change that it reports")
    # Publishers of one stream take turns here, until the transaction ends, and so does who delivers.
    rows = Subscription.objects.select_for_update(of=("self",)).select_related("destination").defer(*Subscription.SECRETS)
    subscription = rows.filter(stream=stream).first()
    if subscription is None or not _takes(subscription, type_):
        return
    sequence = subscription.last_sequence + 1
    envelope = Envelope(
        id=str(new_event_id()),
        source=source,
        type=type_,
        subject=subscription.subject,
        time=timestamp(timezone.now()),
        jobsequence=sequence,
    )
    expires_at = Now() + timedelta(seconds=intervals.lifetime)
    Event.objects.create(
        id=UUID(envelope.id),
        subscription=subscription,
        sequence=sequence,
        type=type_,
        source=source,
        time=envelope.time,
        body=envelope.body(data),
        created_at=Now(),
        expires_at=expires_at,
    )
    row = Subscription.objects.filter(pk=subscription.pk)
    if subscription.next_attempt_at is not None:  # somebody is at it, has been told, or waits
        row.update(last_sequence=sequence)
    elif subscription.destination.waiting:
        row.update(last_sequence=sequence, next_attempt_at=expires_at, waiting_since=Now())
    else:
        row.update(last_sequence=sequence, next_attempt_at=Now())
        delivery_hints.send_on_commit(subscription.pk)


def pending(stream: UUID, most: int) -> int:
    """How many of the stream's events are still to be delivered, counted up to `most`."""
    undelivered = Event.objects.filter(subscription__stream=stream, state=Event.State.PENDING)
    return undelivered.order_by("sequence")[:most].count()


def forget(streams: Sequence[UUID]) -> None:
    """Delete these streams with all that was sent, in small batches."""
    for identity in list(Subscription.objects.filter(stream__in=streams).values_list("pk", flat=True)):
        subscription = Subscription.objects.filter(pk=identity)
        # A delivery under way finds its lease gone, and none begins: nothing is added behind our back.
        subscription.update(lease_token=None, lease_until=None, next_attempt_at=None, waiting_since=None)
        delete_in_batches(Event.objects.filter(subscription=identity), _BATCH)
        subscription.delete()


def _takes(subscription: Subscription, type_: str) -> bool:
    return not subscription.types or type_ in subscription.types
