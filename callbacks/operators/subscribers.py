"""What operators see of the subscriber of a stream: where its events go, and what keeps them from going there."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q

from callbacks.delivery import destination_rows
from callbacks.models import Destination, Subscription
from callbacks.operators import destinations
from orchestrator_site.base.db.encryption import if_readable
from orchestrator_site.base.egress.http_client import redact


@dataclass(frozen=True, slots=True)
class Subscriber:
    """The subscriber of a stream, without secrets."""

    url: str  # without its query
    types: list[str]  # empty: all
    signed: bool
    with_headers: bool  # of the client
    waiting: bool  # for the destination
    unfinished: bool  # events are to be sent
    destination: Destination
    condition: str  # of the destination, in a word or two: "healthy" or what is wrong


def find_subscriber(stream: UUID) -> Subscriber | None:
    """Return the subscriber of a stream, or None if it has none."""
    rows = Subscription.objects.filter(stream=stream).defer(*Subscription.SECRETS)
    row: Any = rows.annotate(
        shown_url=if_readable("url"), signed=Q(key__isnull=False), with_headers=Q(headers__isnull=False)
    ).first()
    if row is None:
        return None
    destination = destination_rows.with_database_time().get(pk=row.destination_id)
    return Subscriber(
        url=redact(row.shown_url),
        types=row.types,
        signed=row.signed,
        with_headers=row.with_headers,
        waiting=row.waiting_since is not None,
        unfinished=row.next_attempt_at is not None or row.lease_token is not None,
        destination=destination,
        condition=destinations.condition(destination),
    )
