"""API keys that are made in the admin: `orch_<8 characters>_<secret>`, of which the first part is shown and the whole is hashed.

Each request with such a key reads its row, by its prefix. A copy in memory would make a revocation late in every process that
does not hear of it.
"""

import hmac
import re
import secrets
import string
import time
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from orchestrator_site.base.access.models import ApiKey
from orchestrator_site.base.config.api_key_file import digest_of
from orchestrator_site.base.db.transactions import DATABASE_UNAVAILABLE, short_read
from orchestrator_site.base.intervals import AccessIntervals

BEGINNING: Final = "orch_"
_ALPHABET: Final = string.ascii_lowercase + string.digits
_FORM: Final = re.compile(rb"(orch_[a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_NO_DIGEST: Final = "0" * 64


class UnusableKey(Exception):
    """The key was revoked or has expired; the message says which."""


def make(*, name: str, namespace: str | None, read_only: bool = False, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Store a new key, and return its row and the key itself, which cannot be found out later."""
    row = ApiKey(name=name, namespace_id=namespace, read_only=read_only, expires_at=expires_at)
    key = new_secret(row)
    row.save()
    return row, key


def new_secret(row: ApiKey) -> str:
    """Put the start and the digest of a new key into a row that is to be stored, and return the key."""
    row.prefix = BEGINNING + "".join(secrets.choice(_ALPHABET) for _ in range(8))
    key = f"{row.prefix}_{secrets.token_urlsafe(32)}"
    row.digest = digest_of(key.encode()).hex()
    return key


def find(key: bytes) -> ApiKey | None:
    """Return the row of a key, None if it is unknown. Raise `UnusableKey`."""
    form = _FORM.fullmatch(key)
    if form is None:
        return None
    rows = ApiKey.objects.filter(prefix=form[1].decode()).annotate(now=Now())
    row: Any = rows.first()
    # compared also if there is no such prefix, so that the time does not tell whether there is one
    if not hmac.compare_digest(digest_of(key).hex(), _NO_DIGEST if row is None else row.digest) or row is None:
        return None
    if row.revoked_at is not None:
        raise UnusableKey("the API key was revoked")
    if row.expires_at is not None and row.expires_at <= row.now:
        raise UnusableKey("the API key has expired")
    _note_use(row)
    found: ApiKey = row
    return found


def any_usable() -> bool:
    """Return whether any key was made that is not revoked and has not expired."""
    return _usable().exists()


def is_usable(prefix: str, intervals: AccessIntervals = AccessIntervals()) -> bool:
    """Return whether the key with this prefix is not revoked and has not expired, or was not a moment ago.

    For answers that take long: those with one key share a query. While the database is away they go on, since it tells them
    nothing.
    """
    try:
        return _is_usable(prefix, time.monotonic() // intervals.recheck_key)
    except DATABASE_UNAVAILABLE:
        return True


@lru_cache(maxsize=1024)
def _is_usable(prefix: str, _period: float) -> bool:
    with short_read():
        return _usable().filter(prefix=prefix).exists()


def _usable() -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)


def revoke(pk: int) -> bool:
    """Refuse the key from the next request on; return False if it was revoked before."""
    return bool(ApiKey.objects.filter(pk=pk, revoked_at=None).update(revoked_at=Now()))


def _note_use(row: Any, intervals: AccessIntervals = AccessIntervals()) -> None:
    """Store that a key is used, unless that was done a moment ago. A request does not fail because of it."""
    period = timedelta(seconds=intervals.note_use)
    if row.last_used_at is not None and row.now - row.last_used_at < period:
        return
    stale = Q(last_used_at=None) | Q(last_used_at__lt=Now() - period)
    with suppress(*DATABASE_UNAVAILABLE):
        ApiKey.objects.filter(stale, pk=row.pk).update(last_used_at=Now())
