"""How much may be sent per second, to a destination and for an owner of streams. Without I/O.

What was sent is charged as the time that it takes at the permitted rate, and nothing more is sent before that time is over
(`limited_until`). Time in which less was sent is saved, up to `DeliveryIntervals.burst`, so short bursts are not held up.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from orchestrator_site.base.intervals import DeliveryIntervals


class RateLimit(NamedTuple):
    """How much may be sent per second."""

    events: int
    size: int  # bytes of their bodies

    def seconds(self, events: int, size: int) -> float:
        """Return how long it takes to send that at this rate."""
        return max(events / self.events, size / self.size)


def after_sending(limited_until: datetime | None, now: datetime, seconds: float, intervals: DeliveryIntervals) -> datetime:
    """Return the new `limited_until` after something was sent that takes these seconds."""
    earliest = now - timedelta(seconds=intervals.burst)
    return max(limited_until or earliest, earliest) + timedelta(seconds=seconds)
