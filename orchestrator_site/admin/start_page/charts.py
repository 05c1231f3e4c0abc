"""Lays out the charts: bars in the units of an SVG's `viewBox`, which a template draws. No script is needed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator_site.admin.start_page.history import MAX_READ, History, Slot, attempts, finished_jobs
from orchestrator_site.base.values.durations import format_duration

HEIGHT: Final = 100
STEP: Final = 10  # from one bar to the next
_WIDTH: Final = 8  # of a bar
_LABELS: Final = 4  # of the time axis


@dataclass(frozen=True, slots=True)
class Part:
    """A part of each bar: the value that it shows, in words, and the class of its color."""

    name: str
    label: str
    color: str


@dataclass(frozen=True, slots=True)
class Rectangle:
    """What is drawn for a part of a bar."""

    y: float
    height: float
    color: str


@dataclass(frozen=True, slots=True)
class Bar:
    """What happened in one slot of the time."""

    x: int
    width: int
    title: str  # shown on hover, and read by screen readers
    rectangles: list[Rectangle]


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template needs to draw a chart."""

    title: str
    parts: Sequence[Part]  # for the legend
    bars: list[Bar]
    width: int
    top: str  # the value at the upper edge
    times: list[datetime]  # of the time axis, equally far from one another
    empty: bool
    note: str


_OUTCOMES: Final = (
    Part("completed", "completed", "chart-good"),
    Part("failed", "failed", "chart-bad"),
    Part("cancelled", "cancelled", "chart-neutral"),
)
_ATTEMPTS: Final = (
    Part("accepted", "accepted", "chart-good"),
    Part("refused", "refused", "chart-warning"),
    Part("unanswered", "no answer", "chart-bad"),
)
_WAITED: Final = (Part("waited", "until jobs started", "chart-neutral"),)
_RAN: Final = (Part("ran", "run time", "chart-info"),)


def charts() -> list[Chart]:
    """Read the history, and return the charts in the order in which they are shown."""
    jobs, deliveries = finished_jobs(), attempts()
    return [
        _chart("Jobs finished", jobs, _OUTCOMES, as_count, "jobs"),
        _chart("Deliveries attempted", deliveries, _ATTEMPTS, as_count, "attempts"),
        _chart("Time until jobs started (average)", jobs, _WAITED, format_duration, "jobs"),
        _chart("Run time of jobs (average)", jobs, _RAN, format_duration, "jobs"),
    ]


def _chart(title: str, history: History, parts: Sequence[Part], text: Callable[[float], str], rows: str) -> Chart:
    slots = history.slots
    top = round_up(max(sum(slot.values.get(part.name, 0) for part in parts) for slot in slots))
    labels = min(_LABELS, len(slots))
    return Chart(
        title=title,
        parts=parts if len(parts) > 1 else (),
        bars=[_bar(number, slot, parts, top, text) for number, slot in enumerate(slots)],
        width=STEP * len(slots),
        top=text(top),
        times=[slots[number * len(slots) // labels].start for number in range(labels)],
        empty=top == 0,
        note="" if history.complete else f"the newest {MAX_READ:,} {rows}",
    )


def _bar(number: int, slot: Slot, parts: Sequence[Part], top: float, text: Callable[[float], str]) -> Bar:
    rectangles, y = [], float(HEIGHT)
    for part in parts:
        height = HEIGHT * slot.values.get(part.name, 0) / top if top else 0
        y -= height
        if height:
            rectangles.append(Rectangle(round(y, 2), round(height, 2), part.color))
    values = ", ".join(f"{text(slot.values.get(part.name, 0))} {part.label}" for part in parts)
    return Bar(number * STEP, _WIDTH, f"from {slot.start:%H:%M} UTC: {values}", rectangles)


def round_up(value: float) -> float:
    """Return the next number that consists of 1, 2 or 5 and zeros. For 0 return 0."""
    if value <= 0:
        return 0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 5) if step * power >= value), 10 * power)


def as_count(value: float) -> str:
    """Return a number of rows as text."""
    return f"{value:,.0f}"
