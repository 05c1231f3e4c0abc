"""What an attempt means for its event: delivered, retry, or dead (docs/callbacks.md). Without I/O."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from callbacks.rules import retry_schedule
from callbacks.rules.outcome import Outcome
from orchestrator_site.base.intervals import DeliveryIntervals

MAX_TRIES: Final = 10
MAX_BEST_EFFORT_TRIES: Final = 5
# Numerous events, each of little value: those that a destination refuses may delay the rest for minutes, not for hours.
BEST_EFFORT_TYPES: Final = frozenset({"orchestrator.job.log"})
PERMANENT_STATUSES: Final = frozenset({HTTPStatus.GONE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination accepted the event."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The event is not tried again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The event is tried again after `seconds`."""

    seconds: float


Verdict = Delivered | Dead | Retry


def is_best_effort(type_: str) -> bool:
    """Return True if events of this type get few tries."""
    return type_ in BEST_EFFORT_TYPES


def judge(
    outcome: Outcome, intervals: DeliveryIntervals, *, type_: str, tries: int, unanswered: int, best_effort_refused: bool
) -> Verdict:
    """Return what becomes of the event. Its age does not matter here: expired events are not tried in the first place.

    Args:
        outcome: Of the attempt.
        intervals: The retry schedule.
        type_: Of the event.
        tries: How many attempts the destination has answered, this one included.
        unanswered: How many attempts in a row it has not answered, this one included.
        best_effort_refused: The last best-effort event of the stream died, so the next ones get one try each.
    """
    if outcome.accepted:
        return Delivered()
    if outcome.status is None:
        pause = retry_schedule.delay(unanswered, intervals)
        return Retry(min(pause, intervals.breaker_open_max) if outcome.by_service else pause)
    if outcome.status in PERMANENT_STATUSES or tries >= _max_tries(type_, best_effort_refused):
        return Dead()
    return Retry(retry_schedule.delay(tries, intervals, outcome.retry_after))


def _max_tries(type_: str, best_effort_refused: bool) -> int:
    if not is_best_effort(type_):
        return MAX_TRIES
    return 1 if best_effort_refused else MAX_BEST_EFFORT_TRIES
