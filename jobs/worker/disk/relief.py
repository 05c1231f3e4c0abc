"""Decides when a job has to be ended because the disk is almost full, and which. No I/O."""

from collections.abc import Mapping
from math import inf
from typing import Final

from jobs.engine.protocol import DiskSpace, DiskUse
from orchestrator_site.base.intervals import DiskIntervals

_DROP: Final = 0.75  # of what was left at the last decision: then another job is ended, because the disk goes on filling
_WORTH: Final = 8  # a job is ended if it uses this part of the reserve: to free less would not help


class Relief:
    """The decisions about one disk. What an ended job has written is freed only after its outputs were sent."""

    def __init__(self, intervals: DiskIntervals) -> None:
        self._intervals = intervals
        self._left = inf  # at the last decision: bytes, or files
        self._decided_at = -inf

    def is_needed(self, space: DiskSpace, now: float) -> bool:
        """Return whether a job has to be ended now."""
        if not (space.is_short_of_bytes or space.is_short_of_files):
            self._left, self._decided_at = inf, -inf
            return False
        left = space.free if space.is_short_of_bytes else space.files - space.files_used
        is_filling = left < self._left and left <= self._left * _DROP
        if not is_filling and now - self._decided_at < self._intervals.relief:
            return False
        self._left, self._decided_at = left, now
        return True

    @staticmethod
    def choose(space: DiskSpace, uses: Mapping[str, DiskUse]) -> str | None:
        """Return the container that uses the most of what is short; None if none uses enough of it."""
        if space.is_short_of_bytes:
            amounts, worth = {name: use.size for name, use in uses.items()}, space.reserve // _WORTH
        else:
            amounts, worth = {name: use.files or 0 for name, use in uses.items()}, space.file_reserve // _WORTH
        most = max(amounts, key=lambda name: amounts[name], default=None)
        return most if most is not None and amounts[most] >= worth else None
