"""How much a destination may be sent now (docs/callbacks.md, "When your server is in trouble"). Pure: rows in, rows changed.

A destination that answers well is trusted with twice as many deliveries at once, up to the most there may be; a
failure makes that one. So a host that hangs holds a thread or two and not all of them, and one that comes back is
not run over. Failures in a row open the breaker; when its time is up, one probe at a time finds out.

A slow answer takes away the trust that lets deliveries use any thread, as a failure does. It also divides how many there are
at once by the seconds that it took: a slightly slow host gets half of them, a very slow one gets one.
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

LEASE_SECONDS: Final = 30.0  # of a delivery, and of the probe that it may be; an attempt takes 15 at most
FAILURES: Final = 5  # in a row
OPEN_SECONDS: Final = 30.0  # the first time; twice that each time after
LONGEST_SECONDS: Final = 600.0  # that a destination is left alone, whatever it asks for: others may share it
SLOW_SECONDS: Final = 1.0  # an answer that takes longer is slow


class BreakerState(StrEnum):
    """Of the breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def state(destination: Destination, now: datetime) -> BreakerState:
    if destination.open_until is None:
        return BreakerState.CLOSED
    return BreakerState.OPEN if _lies_ahead(destination.open_until, now) else BreakerState.HALF_OPEN


def is_closed_to_all(destination: Destination, now: datetime) -> bool:
    """Whether nothing may be sent there now, not even a probe."""
    return destination.paused or _lies_ahead(destination.open_until, now) or _lies_ahead(destination.throttled_until, now)


def _full_trust(most: int) -> int:
    """More than the one delivery that an unproven destination gets, even where no more than one is ever sent at once."""
    return max(most, 2)


def is_proven(destination: Destination) -> bool:
    """Whether its last answers were good and quick."""
    return destination.window > 1 and not is_slow(destination)


def is_slow(destination: Destination) -> bool:
    """Return whether it has answered slowly, and not quickly often enough since."""
    return destination.slowness > 0


def at_once(destination: Destination, most: int) -> int:
    """How many deliveries it may get at once while its breaker is closed. `most`: DELIVERIES_PER_HOST."""
    return max(1, min(destination.window, most) // max(destination.slowness, 1))


def has_gained(before: Destination, after: Destination) -> bool:
    """Whether it is trusted with more deliveries at once than before."""
    return after.window > before.window or after.slowness < before.slowness


def room(destination: Destination, now: datetime, under_way: int, most: int) -> int:
    """How many more deliveries it may get at once. `most`: DELIVERIES_PER_HOST."""
    if is_closed_to_all(destination, now):
        return 0
    if destination.open_until is not None:
        return 0 if _lies_ahead(destination.probe_until, now) else 1
    return max(0, at_once(destination, most) - under_way)


def enter(destination: Destination, now: datetime, token: UUID) -> bool:
    """A delivery begins for which there is room. Whether that changes the row: it is the probe of a half-open breaker."""
    if destination.open_until is None:
        return False
    destination.probe_token, destination.probe_until = token, now + timedelta(seconds=LEASE_SECONDS)
    return True


def learns_nothing(destination: Destination, outcome: Outcome, most: int) -> bool:
    """Whether `learn` would change nothing: a good answer of one that is well. Most are, and cost no lock."""
    well = destination.open_until is None and not destination.failures and not destination.throttles and not is_slow(destination)
    return outcome.accepted and well and not _is_slow_answer(outcome) and destination.window >= _full_trust(most)


def learn(destination: Destination, now: datetime, token: UUID, outcome: Outcome, most: int) -> None:
    """What an attempt says of its destination."""
    _learn_pace(destination, outcome)
    if outcome.status is None or outcome.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _fail(destination, now, token)
        return
    close(destination)
    if outcome.status == HTTPStatus.TOO_MANY_REQUESTS:
        _throttle(destination, now, outcome.retry_after)
    else:
        destination.throttles = 0
        destination.window = min(destination.window * 2, _full_trust(most))


def close(destination: Destination) -> None:
    """It has answered: the count begins anew."""
    destination.failures = destination.openings = 0
    destination.open_until = destination.probe_token = destination.probe_until = None


def _is_slow_answer(outcome: Outcome) -> bool:
    return outcome.latency_ms > SLOW_SECONDS * 1000


def _learn_pace(destination: Destination, outcome: Outcome) -> None:
    """It takes several quick answers to make up for a slow one: a host that mixes both stays slow."""
    if _is_slow_answer(outcome):
        destination.slowness = max(destination.slowness, math.ceil(outcome.latency_ms / 1000))
    elif outcome.status is not None:
        destination.slowness //= 2


def _fail(destination: Destination, now: datetime, token: UUID) -> None:
    destination.window = 1
    if destination.open_until is None:
        destination.failures += 1
        if destination.failures >= FAILURES:
            _open(destination, now)
    elif destination.probe_token == token:  # others were under way when it opened: they say nothing new
        _open(destination, now)


def _open(destination: Destination, now: datetime) -> None:
    seconds = min(OPEN_SECONDS * 2 ** min(destination.openings, 10), LONGEST_SECONDS)
    destination.openings += 1
    destination.open_until = now + timedelta(seconds=seconds)
    destination.probe_token = destination.probe_until = None


def _throttle(destination: Destination, now: datetime, retry_after: float) -> None:
    destination.window = 1
    if not _lies_ahead(destination.throttled_until, now):  # otherwise it was asked together with one that was counted
        destination.throttles += 1
    seconds = min(max(retry_schedule.delay(destination.throttles), retry_after), LONGEST_SECONDS)
    until = now + timedelta(seconds=seconds)
    destination.throttled_until = max(until, destination.throttled_until or until)


def _lies_ahead(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment > now
