"""When to try again (docs/usage.md, "Delivery"). All times in seconds."""

import random
from datetime import datetime
from http import HTTPStatus
from typing import Final

from orchestrator_site.base.egress.retry_after import parse_retry_after

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
    """What an answer's `Retry-After` asks for; 0 where there is none that is to be believed. `date`: its own `Date`."""
    if status not in _BELIEVED or header is None:
        return 0.0
    return min(parse_retry_after(header, now, date), LONGEST_RETRY_AFTER)
