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

from callbacks.delivery import destination_rows, owner_rows
from callbacks.delivery.stream_rows import LockedStreams
from callbacks.models import Destination, OwnerKind, Subscription
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
        self._for_owners = {
            OwnerKind.KEY: RateLimit(configuration.key_rate, configuration.key_bytes),
            OwnerKind.NAMESPACE: RateLimit(configuration.namespace_rate, configuration.namespace_bytes),
        }
        self._intervals = intervals
        self._destinations: _Uncharged[int] = _Uncharged(intervals.charge)
        self._owners: _Uncharged[str] = _Uncharged(intervals.charge)
        self._owners_until: dict[str, datetime] = {}  # `limited_until` as it was last stored by this process

    def add(self, stream: Subscription, sizes: Sequence[int], promised: int) -> None:
        """Count events with bodies of these sizes that were sent, unless their destination is not limited.

        The first `promised` were charged to the owners before.
        """
        if _is_limited(stream):
            self._destinations.add(stream.destination_id, self._to_destination.seconds(len(sizes), sum(sizes)))
            if not_charged := sizes[promised:]:
                for owner, seconds in self._seconds(stream, not_charged).items():
                    self._owners.add(owner, seconds)

    def charge(self) -> None:
        """Charge what is worth it. If the database fails, or another session has locked a row, that is charged later."""
        try:
            for destination, seconds in self._destinations.due().items():
                if self._charge_destination(destination, seconds):
                    self._destinations.settle(destination, seconds)
            self._charge_owners()
        except DATABASE_UNAVAILABLE as error:
            logger.warning("what was sent is charged later: %s", error)

    def is_at_limit(self, stream: Subscription, now: datetime) -> bool:
        """Return whether as much was sent for an owner of the stream as may be, or is promised to other streams."""
        return any(self._owners_until.get(owner, now) > now for owner in stream.owners.values()) and _is_limited(stream)

    def promise(self, rows: LockedStreams) -> None:
        """Promise a time to each stream that was found at its limit, in this order, and make it due then.

        What it may send then is charged to its owners at once, so others are promised later times. If another session has locked
        the row of an owner, the stream gets no promise, and remains due. The caller saves the streams.
        """
        if not rows.at_limit:
            return
        owners = owner_rows.lock_free({owner for stream, _ in rows.at_limit for owner in stream.owners.values()})
        for stream, sizes in rows.at_limit:
            seconds = self._seconds(stream, sizes)
            if seconds.keys() <= owners.keys():
                stream.promised = len(sizes)
                stream.promised_at = max(owners[owner].limited_until or rows.now for owner in seconds)
                stream.next_attempt_at = stream.promised_at
                owner_rows.charge(owners, seconds, self._intervals)
        self._owners_until |= owner_rows.save(owners)

    def _seconds(self, stream: Subscription, sizes: Sequence[int]) -> dict[str, float]:
        """Return how long it takes each owner of the stream to send events of these sizes."""
        return {owner: self._for_owners[kind].seconds(len(sizes), sum(sizes)) for kind, owner in stream.owners.items()}

    def _charge_owners(self) -> None:
        """Charge what is due, except to owners whose rows are locked."""
        due = self._owners.due()
        if not due:
            return
        with short_transaction():
            rows = owner_rows.lock_free(due)
            charged = {owner: due[owner] for owner in rows}
            owner_rows.charge(rows, charged, self._intervals)
            until = owner_rows.save(rows)
        self._owners_until |= until
        for owner, seconds in charged.items():
            self._owners.settle(owner, seconds)

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


def _is_limited(stream: Subscription) -> bool:
    """Return whether the host that the stream goes to is not one that the operator lists."""
    configuration = settings.CONFIGURATION
    return not is_listed_host(stream.destination.origin, configuration.egress_networks, configuration.egress_hosts)
