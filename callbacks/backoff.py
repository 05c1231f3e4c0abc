"""When to try again (docs/usage.md, "Delivery"). All times in seconds."""

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

SCHEDULE: Final = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0)
JITTER: Final = 0.2
LONGEST_RETRY_AFTER: Final = 86400.0
_BELIEVED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


def delay(failures: int, retry_after: float = 0.0, fraction: float | None = None) -> float:
    """How long to wait after so many failures (1 or more): the schedule plus up to a fifth, never less than `retry_after`.

    `fraction` (0 to 1) is how much of the jitter to add; None: at random.
    """
    step = SCHEDULE[min(failures, len(SCHEDULE)) - 1]
    jitter = random.random() if fraction is None else fraction  # noqa: S311 - spreads load, hides nothing
    return max(step * (1 + JITTER * jitter), retry_after)


def retry_after(status: int, header: str | None, now: datetime, date: str | None = None) -> float:
    """What an answer's `Retry-After` (seconds or an HTTP date) asks for; 0 where there is none that is to be believed.

    `date` is the answer's own `Date`: where there is one, it is by the clock that the other date is by, which may not be ours.
    """
    if status not in _BELIEVED or header is None:
        return 0.0
    text = header.strip()
    if re.fullmatch(r"[0-9]+", text):
        seconds = float(text) if len(text) < 300 else LONGEST_RETRY_AFTER
    else:
        answered = _moment(date) if date is not None else None
        seconds = _seconds_between(answered or now, _moment(text))
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _seconds_between(now: datetime, then: datetime | None) -> float:
    return 0.0 if then is None else (then - now).total_seconds()


def _moment(date: str) -> datetime | None:
    """What an HTTP date says; None where it says nothing."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment  # "-0000": UTC, of an unknown zone
