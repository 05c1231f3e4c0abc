"""What an attempt means for its event: delivered, once more, or dead (docs/usage.md, "Delivery"). Pure."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from callbacks.rules import retry_schedule
from callbacks.rules.outcome import Outcome

LIFETIME_SECONDS: Final = 86400.0
MOST_TRIES: Final = 10
MOST_BULK_TRIES: Final = 5
# Many, and each of little worth: what a destination cannot take of them may hold up the rest for minutes, not for hours.
BULK_TYPES: Final = frozenset({"orchestrator.job.log"})
_FINAL: Final = frozenset({HTTPStatus.GONE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination took it."""


@dataclass(frozen=True, slots=True)
class Dead:
    """It will not be tried again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """It is due again after `seconds`."""

    seconds: float


Verdict = Delivered | Dead | Retry


def is_bulk(type_: str) -> bool:
    return type_ in BULK_TYPES


def judge(outcome: Outcome, *, type_: str, tries: int, silences: int, bulk_refused: bool) -> Verdict:
    """`tries`: how many the destination has answered, `silences`: how many it left unanswered in a row, both with this one.

    `bulk_refused`: the stream's last bulk event died. Age is not judged here: an event's `expires_at` holds whatever happens.
    """
    if outcome.accepted:
        return Delivered()
    if outcome.status is None:
        return Retry(retry_schedule.delay(silences))
    if outcome.status in _FINAL or tries >= _most_tries(type_, bulk_refused):
        return Dead()
    return Retry(retry_schedule.delay(tries, outcome.retry_after))


def _most_tries(type_: str, bulk_refused: bool) -> int:
    if not is_bulk(type_):
        return MOST_TRIES
    return 1 if bulk_refused else MOST_BULK_TRIES
