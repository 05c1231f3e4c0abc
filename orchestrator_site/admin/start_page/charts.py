"""Lays out the charts: bars in the units of an SVG's `viewBox`, which a template draws. No script is needed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator_site.admin.start_page import samples
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
    words: str = ""  # after the value in the text of a bar, if not the label


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
    title: str  # shown on hover
    rectangles: list[Rectangle]
    limit: float | None  # where the line is that the parts cannot exceed, if it is known


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template needs to draw a chart."""

    title: str
    parts: Sequence[Part]  # for the legend
    limit: Part | None  # the line over the bars
    bars: list[Bar]
    width: int
    top: str  # the value at the upper edge
    times: list[datetime]  # of the time axis, equally far from one another
    empty: str  # what to say instead of a chart without values
    note: str

    @property
    def summary(self) -> str:
        """What screen readers read of the picture."""
        return f"{self.title}; the last bar, {self.bars[-1].title}"


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
_BREAKERS: Final = (Part(samples.OPEN, "open", "chart-bad"),)
_CAPACITY: Final = Part(samples.CAPACITY, "capacity", "chart-limit", "of capacity")


def charts() -> list[Chart]:
    """Read the history, and return the charts in the order in which they are shown."""
    jobs, deliveries, measured = finished_jobs(), attempts(), samples.read()
    nodes = _nodes(measured)
    no_node, no_breaker = "No node was healthy.", "None was open."
    return [
        _chart("Jobs finished", jobs, _OUTCOMES, as_count, rows="jobs"),
        _chart("Deliveries attempted", deliveries, _ATTEMPTS, as_count, rows="attempts"),
        _chart("Time until jobs started (average)", jobs, _WAITED, format_duration, rows="jobs"),
        _chart("Run time of jobs (average)", jobs, _RAN, format_duration, rows="jobs"),
        _chart("CPU reserved", measured.cpu, nodes, as_cores, limit=_CAPACITY, nothing=no_node),
        _chart("Memory reserved", measured.memory, nodes, as_gib, limit=_CAPACITY, nothing=no_node),
        _chart("Open breakers (most at once)", measured.breakers, _BREAKERS, as_count, nothing=no_breaker),
    ]


def _nodes(measured: samples.Samples) -> list[Part]:
    named = enumerate(measured.nodes.items(), start=1)
    parts = [Part(key, name, f"chart-node-{number}", f"on {name}") for number, (key, name) in named]
    if measured.others:
        label = f"{measured.others:,} other node{'' if measured.others == 1 else 's'}"
        parts.append(Part(samples.OTHERS, label, "chart-neutral", f"on {label}"))
    return parts


def _chart(
    title: str,
    history: History,
    parts: Sequence[Part],
    text: Callable[[float], str],
    *,
    rows: str = "",
    limit: Part | None = None,
    nothing: str = "None yet.",
) -> Chart:
    slots = history.slots
    highest = max(sum(slot.values.get(part.name, 0) for part in parts) for slot in slots)
    # A limit is at the upper edge, so the height of a bar shows how much of it is taken.
    top = max(highest, *(slot.values.get(limit.name, 0) for slot in slots)) if limit else round_up(highest)
    labels = min(_LABELS, len(slots))
    unknown = not any(slot.measured for slot in slots)
    return Chart(
        title=title,
        parts=parts if len(parts) > 1 or limit else (),
        limit=limit,
        bars=[_bar(number, slot, parts, limit, top, text) for number, slot in enumerate(slots)],
        width=STEP * len(slots),
        top=text(top),
        times=[slots[number * len(slots) // labels].start for number in range(labels)],
        empty="" if top else "Not measured yet." if unknown else nothing,
        note="" if history.complete else f"the newest {MAX_READ:,} {rows}",
    )


def _bar(number: int, slot: Slot, parts: Sequence[Part], limit: Part | None, top: float, text: Callable[[float], str]) -> Bar:
    rectangles, y = [], float(HEIGHT)
    for part in parts:
        height = HEIGHT * slot.values.get(part.name, 0) / top if top else 0
        y -= height
        if height:
            rectangles.append(Rectangle(round(y, 2), round(height, 2), part.color))
    named = [*parts, limit] if limit else parts
    values = ", ".join(f"{text(slot.values.get(part.name, 0))} {part.words or part.label}" for part in named)
    line = None
    if limit and top and limit.name in slot.values:
        line = round(HEIGHT * (1 - slot.values[limit.name] / top), 2)
    return Bar(
        number * STEP, _WIDTH, f"from {slot.start:%H:%M} UTC: {values if slot.measured else 'not measured'}", rectangles, line
    )


def round_up(value: float) -> float:
    """Return the next number that consists of 1, 2 or 5 and zeros. For 0 return 0."""
    if value <= 0:
        return 0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 5) if step * power >= value), 10 * power)


def as_count(value: float) -> str:
    """Return a number of rows as text."""
    return f"{value:,.0f}"


def as_cores(value: float) -> str:
    """Return a number of cores as text."""
    amount = _amount(value)
    return f"{amount} core{'' if amount == '1' else 's'}"


def as_gib(value: float) -> str:
    """Return GiB of memory as text."""
    return f"{_amount(value)} GiB"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
