"""Keeps the URLs, keys and headers of streams in memory: decrypting them takes a third of the time of a request."""

import threading
from collections.abc import Sequence
from typing import Any, Final

from callbacks.models import Subscription
from orchestrator_site.base.db.encryption import Unreadable

_MAX_KEPT: Final = 1024  # streams
_UNREADABLE: Final = ("", None, None, None)


class SecretsCache:
    """The secrets of the streams that were delivered last. Those of a stream never change."""

    def __init__(self, max_kept: int = _MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[Any, ...]] = {}  # the values of `Subscription.SECRETS`, by key; the last used at the end

    def fill_in(self, streams: Sequence[Subscription]) -> None:
        """Set the secrets of streams that were read without them; an empty URL if they cannot be decrypted."""
        with self._lock:
            found = {stream.pk: self._kept.pop(stream.pk, None) for stream in streams}
        found |= _read([pk for pk, values in found.items() if values is None])
        for stream in streams:
            for name, value in zip(Subscription.SECRETS, found[stream.pk] or _UNREADABLE, strict=True):
                setattr(stream, name, value)
        with self._lock:
            self._kept.update((pk, values) for pk, values in found.items() if values is not None)
            while len(self._kept) > self._max_kept:
                del self._kept[next(iter(self._kept))]


def _read(identities: list[int]) -> dict[int, tuple[Any, ...] | None]:
    """Return the secrets of these streams, None for those that cannot be decrypted."""
    rows = Subscription.objects.filter(pk__in=identities).only(*Subscription.SECRETS) if identities else ()
    return {row.pk: _secrets_of(row) for row in rows}


def _secrets_of(row: Subscription) -> tuple[Any, ...] | None:
    try:
        return tuple(getattr(row, name) for name in Subscription.SECRETS)
    except Unreadable:
        return None
