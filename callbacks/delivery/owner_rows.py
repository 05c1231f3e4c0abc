"""The rows of owners: created when first charged, locked, and charged."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from django.db.models.functions import Now

from callbacks.models import Owner
from callbacks.rules import rate_limit
from orchestrator_site.base.db.statements import update_rows
from orchestrator_site.base.intervals import DeliveryIntervals


def lock_free(names: Collection[str]) -> dict[str, Any]:
    """Lock the rows of these owners until the transaction ends, except those that another transaction has locked.

    This waits for no lock, so the caller may hold any others.
    """
    rows = _lock_existing(names)
    if len(rows) < len(names):
        Owner.objects.bulk_create([Owner(name=name) for name in sorted(set(names) - rows.keys())], ignore_conflicts=True)
        rows |= _lock_existing(set(names) - rows.keys())
    return rows


def _lock_existing(names: Collection[str]) -> dict[str, Any]:
    rows = Owner.objects.select_for_update(no_key=True, skip_locked=True).annotate(now=Now()).filter(name__in=names)
    return {row.name: row for row in rows}


def charge(rows: Mapping[str, Any], seconds: Mapping[str, float], intervals: DeliveryIntervals) -> None:
    """Charge these owners with seconds of sending at the permitted rate, in their locked rows."""
    for name, of_owner in seconds.items():
        row = rows[name]
        row.limited_until = rate_limit.after_sending(row.limited_until, row.now, of_owner, intervals)


def save(rows: Mapping[str, Any]) -> dict[str, datetime]:
    """Store charged rows, and return when each owner may send again."""
    update_rows(Owner, list(rows.values()), ("limited_until",))
    return {name: row.limited_until for name, row in rows.items() if row.limited_until is not None}
