"""Tries one input after the other, and measures what that leaves in the attacked process."""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

# Tries the input that it makes, or several, and returns their number; raises if the product broke a promise.
Attack = Callable[[Random], int | None]

_MAX_KEPT_ERRORS: Final = 20
_WARM_UP: Final = 300  # inputs, after which caches and pools are filled
_PROGRESS_SECONDS: Final = 60
# How much more there may be after all inputs than after the first few hundred.
_MAX_GROWTH: Final = {"memory": 32 * 1024**2, "threads": 20, "files": 20}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process uses."""

    memory: int  # resident bytes
    threads: int
    files: int

    @classmethod
    def of(cls, process: int) -> "Resources":
        directory = Path(f"/proc/{process}")
        status = dict(line.split(":", 1) for line in (directory / "status").read_text().splitlines())
        return cls(int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"]), len(os.listdir(directory / "fd")))


@dataclass(slots=True)
class Figures:
    """What a campaign found."""

    name: str
    seed: str
    inputs: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)  # the first of them
    failed: int = 0
    before: Resources | None = None
    after: Resources | None = None

    @property
    def problems(self) -> list[str]:
        """Return the errors, and what the process uses more than before."""
        if self.before is None or self.after is None:
            return self.errors
        grown = {name: getattr(self.after, name) - getattr(self.before, name) for name in _MAX_GROWTH}
        return self.errors + [f"{name} grew by {grown[name]}" for name, limit in _MAX_GROWTH.items() if grown[name] > limit]

    def __str__(self) -> str:
        text = f"{self.name}: {self.inputs} inputs in {self.seconds:.0f} s (seed {self.seed}), {self.failed} errors"
        if self.before is None or self.after is None:
            return text
        rows = (
            f"{name} {getattr(self.before, attribute) / unit:.1f} -> {getattr(self.after, attribute) / unit:.1f}"
            for name, attribute, unit in (("MiB", "memory", 1024**2), ("threads", "threads", 1), ("open files", "files", 1))
        )
        return ", ".join((text, *rows))


def run(
    name: str,
    attack: Attack,
    *,
    seed: str = "1",
    first: int = 0,
    inputs: int | None = None,
    seconds: float | None = None,
    process: int | None = None,
    settle: Callable[[], object] = gc.collect,
    report: Callable[[str], object] = lambda _: None,
) -> Figures:
    """Try inputs until their number is reached or the time is up, and return the figures.

    Args:
        name: Of the kind of input.
        attack: Called with a `Random` for each input.
        seed: With the number of an input it makes the same input again.
        first: The number of the first input.
        inputs: The number of inputs.
        seconds: The time for all of them.
        process: The process to measure, by default this one.
        settle: Called before a measurement, to let the process end what it does for the inputs so far.
        report: Called from time to time with the figures so far, and at once with each error.
    """
    process = os.getpid() if process is None else process
    figures = Figures(name, seed)
    began = reported = time.monotonic()
    number = first
    while (inputs is None or figures.inputs < inputs) and (seconds is None or time.monotonic() - began < seconds):
        try:
            figures.inputs += attack(Random(f"{seed}/{number}")) or 1
        except Exception as error:
            figures.inputs += 1
            figures.failed += 1
            text = f"{name}, input {number}: {type(error).__name__}: {error}"[:2000]
            if len(figures.errors) < _MAX_KEPT_ERRORS:
                figures.errors.append(text)
                report(text)
        number += 1
        if figures.before is None and figures.inputs >= _WARM_UP:
            settle()
            figures.before = Resources.of(process)
        if time.monotonic() - reported > _PROGRESS_SECONDS:
            reported = time.monotonic()
            figures.seconds, figures.after = reported - began, Resources.of(process)
            report(f"... {figures}")
    figures.seconds = time.monotonic() - began
    settle()
    figures.after = Resources.of(process)
    return figures
