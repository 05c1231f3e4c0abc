"""Reads the history for the charts, a row per minute.

Only the newest `MAX_READ` rows of the time are read, by an index: then a chart covers less time, and says so.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Avg, Count, F, Q, QuerySet
from django.db.models.functions import Now, TruncMinute
from django.utils import timezone

from callbacks.models import Attempt
from jobs.models import Job
from orchestrator_site.base.intervals import AdminIntervals

MAX_READ: Final = 5_000
SLOTS: Final = 36  # at most: the bars of a chart


@dataclass(slots=True)
class Slot:
    """What happened in one of the equal parts of the time."""

    start: datetime
    values: dict[str, float] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    measured: bool = True  # False: what happened is unknown

    def add(self, name: str, value: float) -> None:
        self.values[name] = self.values.get(name, 0) + value

    def average(self, name: str, value: float, weight: int) -> None:
        """Include an average of `weight` values in the average `name`."""
        before = self.weights.get(name, 0)
        self.values[name] = (self.values.get(name, 0) * before + value * weight) / (before + weight)
        self.weights[name] = before + weight


@dataclass(frozen=True, slots=True)
class History:
    """The slots of a chart, the oldest first."""

    slots: list[Slot]
    complete: bool  # False: there were too many rows, and the oldest slots are missing


def finished_jobs(intervals: AdminIntervals = AdminIntervals()) -> History:
    """Return the jobs that finished, by outcome, with the average seconds that they waited and ran."""
    recent = Job.objects.filter(completed_at__gt=Now() - timedelta(seconds=intervals.charts_show))
    rows = (
        _newest(recent, "completed_at")
        .annotate(minute=TruncMinute("completed_at"))
        .values("minute", "status")
        .annotate(
            jobs=Count("pk"),
            started=Count("started_at"),
            waited=Avg(F("started_at") - F("created_at")),
            ran=Avg(F("finished_at") - F("started_at")),
        )
        .order_by()
    )

    def add(slot: Slot, row: dict[str, Any]) -> None:
        slot.add(row["status"], row["jobs"])
        for name in ("waited", "ran"):
            if row[name] is not None:
                slot.average(name, row[name].total_seconds(), row["started"])

    return _history(rows, add, "jobs", intervals)


def attempts(intervals: AdminIntervals = AdminIntervals()) -> History:
    """Return the attempts to deliver events, by result, the newest by their primary key: there is no index of their times."""
    rows = (
        _newest(Attempt.objects.all(), "pk")
        .filter(time__gt=Now() - timedelta(seconds=intervals.charts_show))
        .annotate(minute=TruncMinute("time"))
        .values("minute")
        .annotate(
            attempts=Count("pk"),
            accepted=Count("pk", filter=Q(status__range=(200, 299))),
            unanswered=Count("pk", filter=Q(status=None)),
        )
        .order_by()
    )

    def add(slot: Slot, row: dict[str, Any]) -> None:
        slot.add("accepted", row["accepted"])
        slot.add("unanswered", row["unanswered"])
        slot.add("refused", row["attempts"] - row["accepted"] - row["unanswered"])

    return _history(rows, add, "attempts", intervals)


def _newest(rows: QuerySet[Any], column: str) -> QuerySet[Any]:
    """Return `MAX_READ` of the rows, and those with the same value as the last of them, or all if there are fewer.

    A lower bound makes the database read a part of the column's index. If it got the rows of a subquery instead, PostgreSQL
    would read the whole table and join both.
    """
    last = rows.order_by(f"-{column}").values_list(column, flat=True)[MAX_READ - 1 : MAX_READ].first()
    return rows if last is None else rows.filter(**{f"{column}__gte": last})


def _history(rows: Iterable[Any], add: Callable[[Slot, Any], None], counted: str, intervals: AdminIntervals) -> History:
    """Add the rows, each of a minute, to slots of equal length. `counted`: how many rows of the table each stands for."""
    found = list(rows)
    now = timezone.now()
    complete = sum(row[counted] for row in found) < MAX_READ
    begin = now - timedelta(seconds=intervals.charts_show)
    if not complete:  # of the oldest minute a part may be missing
        oldest = min(row["minute"] for row in found)
        found = [row for row in found if row["minute"] > oldest] or found
        begin = min(row["minute"] for row in found)
    step = timedelta(seconds=intervals.charts_step)
    begin = min(begin, now - step)
    count = min(SLOTS, (now - begin) // step)
    length = (now - begin) / count
    slots = [Slot(begin + length * number) for number in range(count)]
    for row in found:
        number = (row["minute"] - begin) // length
        if number >= 0:
            add(slots[min(number, count - 1)], row)
    return History(slots, complete)
