"""When to try again (docs/callbacks.md). All times are in seconds."""

import random
from datetime import datetime
from http import HTTPStatus
from typing import Final

from orchestrator_site.base.egress.retry_after import parse_retry_after
from orchestrator_site.base.intervals import DeliveryIntervals

RETRY_AFTER_STATUSES: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


def delay(failures: int, intervals: DeliveryIntervals, retry_after: float = 0.0, fraction: float | None = None) -> float:
    """Return how long to wait before the next try.

    Args:
        failures: How many tries have failed, 1 or more.
        intervals: The schedule and its jitter.
        retry_after: The shortest wait, as the destination asked for it.
        fraction: How much of the jitter to add, from 0 to 1; random by default.
    """
    step = intervals.retries[min(failures, len(intervals.retries)) - 1]
    jitter = random.random() if fraction is None else fraction  # noqa: S311 - spreads load, hides nothing
    return max(step * (1 + intervals.retry_jitter * jitter), retry_after)


def retry_after(status: int, header: str | None, now: datetime, intervals: DeliveryIntervals, date: str | None = None) -> float:
    """Return the wait that an answer asks for in `Retry-After`, or 0 if its status or the header's value does not count.

    Args:
        status: The answer's status.
        header: Its `Retry-After`.
        now: When it arrived.
        intervals: The longest wait that is honored.
        date: Its `Date`: a `Retry-After` that is a date is by that clock.
    """
    if status not in RETRY_AFTER_STATUSES or header is None:
        return 0.0
    return min(parse_retry_after(header, now, date), intervals.retry_after_max)
