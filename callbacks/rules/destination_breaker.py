"""How many deliveries a destination may get now (docs/callbacks.md, "When your server is in trouble").

Without I/O: the functions read and change a `Destination` in memory, and the caller locks and saves the row.

- **Window.** A destination starts with one delivery at a time. Each good answer doubles that, up to `DELIVERIES_PER_HOST`; a
  failure sets it back to one. So a host that hangs occupies few threads, and one that recovers is not overrun.
- **Slowness.** A slow answer divides the window by the seconds that it took; it takes several quick ones to make up for it.
- **Breaker.** Failures in a row open it: nothing is sent for a while, then one probe at a time (half open).
- **Limit.** Nothing is sent while the destination has got as much as it may (`rate_limit`).
- **Throttle.** After a 429 nothing is sent for as long as the destination asked for, or as the retry schedule says.
"""

import math
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Final
from uuid import UUID

from callbacks.models import Destination
from callbacks.rules import retry_schedule
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.intervals import DeliveryIntervals

FAILURES_TO_OPEN: Final = 5  # in a row


class BreakerState(StrEnum):
    """The state of a destination's breaker."""

    CLOSED = "closed"  # yes
    OPEN = "open"  # no
    HALF_OPEN = "half_open"  # one probe at a time


def state(destination: Destination, now: datetime) -> BreakerState:
    """Return the state of the destination's breaker."""
    if destination.open_until is None:
        return BreakerState.CLOSED
    return BreakerState.OPEN if _is_future(destination.open_until, now) else BreakerState.HALF_OPEN


def is_blocked(destination: Destination, now: datetime) -> bool:
    """Return True if nothing may be sent now, not even a probe: paused, breaker open, throttled, or at its limit."""
    times = (destination.open_until, destination.throttled_until, destination.limited_until)
    return destination.paused or any(_is_future(moment, now) for moment in times)


def is_fast(destination: Destination) -> bool:
    """Return True if its last answers were good and quick. False for a destination that is new, failing or slow."""
    return destination.window > 1 and not is_slow(destination)


def is_slow(destination: Destination) -> bool:
    """Return True if it has answered slowly, and not quickly often enough since."""
    return destination.slowness > 0


def max_in_flight(destination: Destination, limit: int) -> int:
    """Return how many deliveries it may get at once while its breaker is closed. `limit`: `DELIVERIES_PER_HOST`."""
    return max(1, min(destination.window, limit) // max(destination.slowness, 1))


def may_get_more(before: Destination, after: Destination) -> bool:
    """Return True if it may get more deliveries at once than before."""
    return after.window > before.window or after.slowness < before.slowness


def free_slots(destination: Destination, now: datetime, in_flight: int, limit: int) -> int:
    """Return how many more deliveries may start now, with `in_flight` under way. `limit`: `DELIVERIES_PER_HOST`."""
    if is_blocked(destination, now):
        return 0
    if destination.open_until is not None:
        return 0 if _is_future(destination.probe_until, now) else 1
    return max(0, max_in_flight(destination, limit) - in_flight)


def start_delivery(destination: Destination, now: datetime, token: UUID, intervals: DeliveryIntervals) -> bool:
    """Start the delivery `token` in a free slot. Return True if that changes the row: it is the probe of a half-open breaker."""
    if destination.open_until is None:
        return False
    destination.probe_token, destination.probe_until = token, now + timedelta(seconds=intervals.lease)
    return True


def give_up_probe(destination: Destination, token: UUID) -> None:
    """Let another delivery be the probe if the delivery `token` is: it was not sent, which says nothing about the destination."""
    if destination.probe_token == token:
        destination.probe_token = destination.probe_until = None


def is_unchanged_by(destination: Destination, outcome: Outcome, limit: int, intervals: DeliveryIntervals) -> bool:
    """Return True if `record` would change nothing, as after most answers: then the row need not be locked."""
    steady = not (destination.open_until or destination.failures or destination.throttles or is_slow(destination))
    return steady and outcome.accepted and not _is_slow_answer(outcome, intervals) and destination.window >= _full_window(limit)


def record(
    destination: Destination, now: datetime, token: UUID, outcome: Outcome, limit: int, intervals: DeliveryIntervals
) -> None:
    """Change the row by the outcome of the delivery `token`. `limit`: `DELIVERIES_PER_HOST`."""
    _record_latency(destination, outcome, intervals)
    if outcome.status is None or outcome.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _fail(destination, now, token, intervals)
        return
    close(destination)
    if outcome.status == HTTPStatus.TOO_MANY_REQUESTS:
        _throttle(destination, now, outcome.retry_after, intervals)
    else:
        destination.throttles = 0
        destination.window = min(destination.window * 2, _full_window(limit))


def close(destination: Destination) -> None:
    """Close the breaker, forgetting its failures and its probe."""
    destination.failures = destination.openings = 0
    destination.open_until = destination.probe_token = destination.probe_until = None


def reset(destination: Destination) -> None:
    """Forget failures, throttling and slow answers."""
    close(destination)
    destination.throttles, destination.throttled_until, destination.slowness = 0, None, 0


def _full_window(limit: int) -> int:
    """Return the largest window: at least 2, so that a fast destination differs from a new one whatever the limit."""
    return max(limit, 2)


def _is_slow_answer(outcome: Outcome, intervals: DeliveryIntervals) -> bool:
    return outcome.latency_ms > intervals.slow * 1000


def _record_latency(destination: Destination, outcome: Outcome, intervals: DeliveryIntervals) -> None:
    if _is_slow_answer(outcome, intervals):
        destination.slowness = max(destination.slowness, math.ceil(outcome.latency_ms / 1000))
    elif outcome.status is not None:
        destination.slowness //= 2  # gradually, so that a host that mixes both stays slow


def _fail(destination: Destination, now: datetime, token: UUID, intervals: DeliveryIntervals) -> None:
    destination.window = 1
    if destination.open_until is None:
        destination.failures += 1
        if destination.failures >= FAILURES_TO_OPEN:
            _open(destination, now, intervals)
    elif destination.probe_token == token:  # others were in flight when it opened: their failures say nothing new
        _open(destination, now, intervals)


def _open(destination: Destination, now: datetime, intervals: DeliveryIntervals) -> None:
    seconds = min(intervals.breaker_open * 2 ** min(destination.openings, 10), intervals.breaker_open_max)
    destination.openings += 1
    destination.open_until = now + timedelta(seconds=seconds)
    destination.probe_token = destination.probe_until = None


def _throttle(destination: Destination, now: datetime, retry_after: float, intervals: DeliveryIntervals) -> None:
    destination.window = 1
    if not _is_future(destination.throttled_until, now):  # otherwise this 429 belongs to one that was counted
        destination.throttles += 1
    delay = retry_schedule.delay(destination.throttles, intervals)
    until = now + timedelta(seconds=min(max(delay, retry_after), intervals.breaker_open_max))
    destination.throttled_until = max(until, destination.throttled_until or until)


def _is_future(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment > now
