"""Counts what a process sends, and charges it to the rows of destinations and owners (`callbacks.rules.rate_limit`).

All processes share these rows. To change one for each event would cost too much, so a process charges when it has sent as much as
may be sent in half a second. Hosts that operators list in EGRESS_ALLOW are not limited, because they are their own.
"""

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Generic, TypeVar

from django.conf import settings
from django.db.models.functions import Now

from callbacks.delivery import destination_rows
from callbacks.models import Destination, Owner, Subscription
from callbacks.rules import rate_limit
from callbacks.rules.rate_limit import RateLimit
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, short_transaction
from orchestrator_site.base.egress.host_checks import is_listed_host
from orchestrator_site.base.intervals import DeliveryIntervals

logger = logging.getLogger(__name__)

_MAX_KEPT: Final = 10_000  # then what is not worth a statement is forgotten

Key = TypeVar("Key", int, str)


class _Uncharged(Generic[Key]):
    """Seconds that are to be charged, by key."""

    def __init__(self, least: float) -> None:
        """Less than `least` seconds is not worth a statement."""
        self._least = least
        self._lock = threading.Lock()
        self._seconds: dict[Key, float] = {}
        self._due: set[Key] = set()

    def add(self, key: Key, seconds: float) -> None:
        with self._lock:
            if len(self._seconds) > _MAX_KEPT:
                self._seconds = {due: self._seconds[due] for due in self._due}
            self._seconds[key] = self._seconds.get(key, 0.0) + seconds
            if self._seconds[key] >= self._least:
                self._due.add(key)

    def due(self) -> dict[Key, float]:
        """Return what is worth a statement."""
        with self._lock:
            return {key: self._seconds[key] for key in self._due}

    def settle(self, key: Key, seconds: float) -> None:
        """Record that these seconds were charged."""
        with self._lock:
            left = self._seconds.pop(key, 0.0) - seconds
            self._due.discard(key)
        if left > 0:
            self.add(key, left)


class SentVolume:
    """What one process has sent and not charged yet. May be used by any number of threads."""

    def __init__(self, intervals: DeliveryIntervals) -> None:
        configuration = settings.CONFIGURATION
        self._to_destination = RateLimit(configuration.destination_rate, configuration.destination_bytes)
        self._for_owner = RateLimit(configuration.namespace_rate, configuration.namespace_bytes)
        self._intervals = intervals
        self._destinations: _Uncharged[int] = _Uncharged(intervals.charge)
        self._owners: _Uncharged[str] = _Uncharged(intervals.charge)
        self._owners_until: dict[str, datetime] = {}  # `limited_until` as it was last stored by this process

    def add(self, stream: Subscription, sizes: Sequence[int]) -> None:
        """Count events with bodies of these sizes that were sent, unless their destination is not limited."""
        configuration = settings.CONFIGURATION
        if not is_listed_host(stream.destination.origin, configuration.egress_networks, configuration.egress_hosts):
            self._destinations.add(stream.destination_id, self._to_destination.seconds(len(sizes), sum(sizes)))
            self._owners.add(stream.owner, self._for_owner.seconds(len(sizes), sum(sizes)))

    def charge(self) -> None:
        """Charge what is worth it. If the database fails, or another session has locked a row, that is charged later."""
        try:
            for destination, seconds in self._destinations.due().items():
                if self._charge_destination(destination, seconds):
                    self._destinations.settle(destination, seconds)
            for owner, seconds in self._owners.due().items():
                if self._charge_owner(owner, seconds):
                    self._owners.settle(owner, seconds)
        except DATABASE_UNAVAILABLE as error:
            logger.warning("what was sent is charged later: %s", error)

    def owner_limited_until(self, owner: str, now: datetime) -> datetime | None:
        """Return when events of this owner may be sent again, None if they may be sent now."""
        until = self._owners_until.get(owner)
        return until if until is not None and until > now else None

    def _charge_destination(self, pk: int, seconds: float) -> bool:
        """Return False if the row is locked: what holds it must not hold up other destinations."""
        with short_transaction():
            locked = destination_rows.lock_if_free(pk)
            if locked is None:
                return not Destination.objects.filter(pk=pk).exists()
            destination, now = locked
            until = rate_limit.after_sending(destination.limited_until, now, seconds, self._intervals)
            Destination.objects.filter(pk=pk).update(limited_until=until)
        return True

    def _charge_owner(self, name: str, seconds: float) -> bool:
        with short_transaction():
            Owner.objects.bulk_create([Owner(name=name)], ignore_conflicts=True)
            locked = Owner.objects.select_for_update(skip_locked=True).annotate(now=Now()).filter(name=name).first()
            if locked is None:
                return False
            until = rate_limit.after_sending(locked.limited_until, locked.now, seconds, self._intervals)
            Owner.objects.filter(name=name).update(limited_until=until)
        self._owners_until[name] = until
        return True
