"""The header `Retry-After` (RFC 9110, 10.2.3), in both of its forms."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_LONGEST: Final = 86400.0 * 366  # seconds; more digits than this has are no number that anybody means


def seconds(header: str, now: datetime, date: str | None = None) -> float:
    """What it asks for, 0 where it cannot be read.

    `date` is the answer's own `Date`: where there is one, it is by the clock that the other date is by, which may not be ours.
    """
    text = header.strip()
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text[:300]), _LONGEST)
    then = _moment(text)
    answered = _moment(date) if date is not None else None
    return 0.0 if then is None else max(0.0, (then - (answered or now)).total_seconds())


def _moment(date: str) -> datetime | None:
    """What an HTTP date says; None where it says nothing."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment  # "-0000": UTC, of an unknown zone
