"""The seam: whoever has something to tell calls this, inside the transaction that makes it true.

A stream is named by a UUID and has at most one subscriber; what is published to a stream without one is kept nowhere.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from callbacks.cloudevents import Envelope, timestamp
from callbacks.models import Attempt, Event, Subscription, new_event_id
from callbacks.policy import LIFETIME_SECONDS
from orchestrator_site.broker import hint
from orchestrator_site.egress import origin_of

QUEUE: Final = "deliveries"
ACTOR: Final = "deliver"
_BATCH: Final = 500


def subscribe(stream: UUID, subject: str, url: str, key: str | None, types: Sequence[str]) -> None:
    """Send the events of `stream`, which are about `subject`, to `url` from now on.

    `key` signs them. `types` are the types it takes, none: all. Raises `EgressDenied` where `url` is no http(s) URL.
    """
    Subscription.objects.create(
        stream=stream, subject=subject, url=url, key=key or None, origin=origin_of(url), types=sorted(set(types))
    )


def publish(stream: UUID, type_: str, source: str, data: Mapping[str, Any]) -> None:
    """Keep an event, to be sent once the caller's transaction is committed. Nothing happens where nobody takes it.

    Raises `EventTooLarge` and ValueError as `Envelope.body` does.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("an event is published in the transaction of the change that it reports")
    # Publishers of one stream take turns here, until the transaction ends, and so does who delivers.
    subscription = Subscription.objects.select_for_update().defer("url", "key").filter(stream=stream).first()
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
    Event.objects.create(
        id=UUID(envelope.id),
        subscription=subscription,
        sequence=sequence,
        type=type_,
        source=source,
        time=envelope.time,
        body=envelope.body(data),
        created_at=Now(),
        expires_at=Now() + timedelta(seconds=LIFETIME_SECONDS),
    )
    Subscription.objects.filter(pk=subscription.pk).update(
        last_sequence=sequence, revision=F("revision") + 1, next_attempt_at=Coalesce("next_attempt_at", Now())
    )
    if subscription.next_attempt_at is None:  # otherwise somebody is at it, has been told, or waits for a retry
        transaction.on_commit(partial(hint, QUEUE, ACTOR, subscription.pk), robust=True)


def forget(streams: Sequence[UUID]) -> None:
    """Delete these streams with all that was sent, in small batches."""
    for identity in list(Subscription.objects.filter(stream__in=streams).values_list("pk", flat=True)):
        subscription = Subscription.objects.filter(pk=identity)
        # A delivery under way finds its lease gone, and none begins: nothing is added behind our back.
        subscription.update(lease_token=None, lease_until=None, next_attempt_at=None)
        while batch := list(Event.objects.filter(subscription=identity).values_list("pk", flat=True)[:_BATCH]):
            with transaction.atomic():
                Attempt.objects.filter(event__in=batch).delete()
                Event.objects.filter(pk__in=batch).delete()
        subscription.delete()


def _takes(subscription: Subscription, type_: str) -> bool:
    return not subscription.types or type_ in subscription.types
