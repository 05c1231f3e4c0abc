"""Finds the streams that are due, by the index of their times."""

from collections.abc import Collection

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from callbacks.models import Subscription
from orchestrator_site.base.db.transactions import short_read


def due_rows() -> QuerySet[Subscription]:
    """Return the due subscriptions that no process delivers."""
    free = Q(lease_until=None) | Q(lease_until__lte=Now())
    return Subscription.objects.filter(free, next_attempt_at__lte=Now())


def due(limit: int, but: Collection[int] = ()) -> list[int]:
    """Return the ids of at most `limit` due subscriptions `but` these that no process delivers, the longest due first."""
    rows = due_rows().exclude(pk__in=but) if but else due_rows()
    with short_read():
        return list(rows.order_by("next_attempt_at", "pk").values_list("pk", flat=True)[:limit])
