"""The `Retry-After` header (RFC 9110, 10.2.3)."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def parse_retry_after(header: str, now: datetime, date: str | None = None) -> float:
    """Return the seconds to wait, 0 for an invalid header.

    `date` is the answer's `Date` header: a date in `Retry-After` is by the server's clock, which may differ from ours.
    """
    text = header.strip()
    if re.fullmatch(r"[0-9]+", text):
        return float(text[:300])  # more digits would be infinite
    then = _parse_date(text)
    answered = _parse_date(date) if date is not None else None
    return 0.0 if then is None else max(0.0, (then - (answered or now)).total_seconds())


def _parse_date(date: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment  # "-0000": UTC, of an unknown zone
