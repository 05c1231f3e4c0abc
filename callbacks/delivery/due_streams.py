"""Finds the streams that are due, by the index of their times."""

from collections.abc import Collection
from typing import Final

from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from callbacks.models import Subscription
from orchestrator_site.base.db.statements import placeholders, sql
from orchestrator_site.base.db.transactions import short_read

# As in `due_rows`: to build the statement with Django's ORM takes longer than to execute it, 0.36 ms.
_DUE: Final = "(lease_until IS NULL OR lease_until <= {now}) AND next_attempt_at <= {now}"
_FIRST: Final = "ORDER BY next_attempt_at, id LIMIT %s"


def due_rows() -> QuerySet[Subscription]:
    """Return the due subscriptions that no process delivers."""
    free = Q(lease_until=None) | Q(lease_until__lte=Now())
    return Subscription.objects.filter(free, next_attempt_at__lte=Now())


def due(limit: int, but: Collection[int] = ()) -> list[int]:
    """Return the ids of at most `limit` due subscriptions `but` these that no process delivers, the longest due first."""
    others = f"AND id NOT IN ({placeholders(but)})" if but else ""
    statement = f"SELECT id FROM callbacks_subscription WHERE {sql(_DUE)} {others} {_FIRST}"  # noqa: S608 - only placeholders
    with short_read(), connection.cursor() as cursor:
        cursor.execute(statement, [*but, limit])
        return [identity for (identity,) in cursor.fetchall()]
