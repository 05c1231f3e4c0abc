"""Decides which container has to be measured next. No I/O.

To measure a container may take seconds, to see how full the disk is takes microseconds. What was written to the disk since a
container was last measured may be its doing, but no more than that: as long as it would stay below its limit even so, it needs no
second look. So idle jobs cost nothing, and one that fills the disk is found as soon as it may have exceeded its limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from jobs.engine.protocol import DiskSpace, DiskUse
from jobs.transfers import format_size
from orchestrator_site.base.intervals import DiskIntervals

BYTES_PER_FILE: Final = 16 * 1024  # a disk usually has room for one file for each of them

# How long measuring may take, compared to the pauses between: for one container while it may have exceeded its limit, for all
# together then, and for all if nothing tells which is to be measured.
_REST_OF_ONE: Final = 4
_REST_OF_ALL: Final = 1
_REST_WITHOUT_SPACE: Final = 19


@dataclass(frozen=True, slots=True)
class Written:
    """What was written to the disk, by all programs, since it was first looked at."""

    size: int = 0  # bytes
    files: int = 0


@dataclass(slots=True)
class _Container:
    is_known: bool
    size_at: int  # what had been written to the disk when the container had this `size`
    files_at: int
    measured_at: float
    size: int = 0
    files: int = 0
    rests_until: float = -inf


class Ledger:
    """The containers of one worker, and what was written to the disk of its engine."""

    def __init__(self, limit: int, intervals: DiskIntervals) -> None:
        """`limit` is what a container may write, in bytes."""
        self.limit = limit
        self.max_files = limit // BYTES_PER_FILE
        self.written = Written()
        self._intervals = intervals
        self._space: DiskSpace | None = None
        self._containers: dict[str, _Container] = {}
        self._rests_until = -inf

    # -- what is seen -------------------------------------------------------------------------------------

    def see(self, space: DiskSpace | None) -> None:
        """Take note of how full the disk is; None if that cannot be seen."""
        before, self._space = self._space, space
        if space is None:
            return
        if before is None:  # what was written meanwhile is unknown
            for container in self._containers.values():
                container.is_known = False
            return
        size, files = max(space.used - before.used, 0), max(space.files_used - before.files_used, 0)
        self.written = Written(self.written.size + size, self.written.files + files)

    def add(self, name: str, now: float, *, is_new: bool) -> None:
        """Add a container. If it `is_new` it does not exist yet, so that it has written nothing."""
        at = self.written
        self._containers[name] = _Container(is_known=is_new, size_at=at.size, files_at=at.files, measured_at=now)

    def remove(self, name: str) -> None:
        """Forget a container, if it is here."""
        self._containers.pop(name, None)

    def record(self, name: str, use: DiskUse, written: Written, began: float, now: float) -> None:
        """Take note of what a container has written. The measurement began when `written` was the disk's."""
        if (container := self._containers.get(name)) is None:
            return
        container.is_known, container.size, container.size_at = True, use.size, written.size
        if use.files is not None:
            container.files, container.files_at = use.files, written.files
        container.measured_at = now
        self._rest(container, began, now)

    def put_off(self, name: str, began: float, now: float) -> None:
        """Take note that a container could not be measured."""
        if (container := self._containers.get(name)) is not None:
            container.measured_at = now
            self._rest(container, began, now)
            container.rests_until = max(container.rests_until, now + self._intervals.retry)

    def _rest(self, container: _Container, began: float, now: float) -> None:
        took = now - began
        container.rests_until = now + took * _REST_OF_ONE
        self._rests_until = now + took * (_REST_OF_ALL if self._space else _REST_WITHOUT_SPACE)

    # -- what follows from it -----------------------------------------------------------------------------

    def due(self, names: Iterable[str], now: float) -> str | None:
        """Return which of these containers is to be measured now: of all that need it the one that was not for longest."""
        if now < self._rests_until:
            return None
        due = [name for name in names if (container := self._containers.get(name)) and self._is_due(container, now)]
        return min(due, key=lambda name: self._containers[name].measured_at, default=None)

    def _is_due(self, container: _Container, now: float) -> bool:
        if now < container.rests_until:
            return False
        if self._space is None or self._may_exceed(container):
            return True
        # Files that are deleted hide what is written meanwhile.
        return self.written.size > container.size_at and now - container.measured_at >= self._intervals.oldest

    def may_exceed(self, name: str) -> bool:
        """Return whether a container may have exceeded its limit; False if nothing tells."""
        container = self._containers.get(name)
        return container is not None and self._space is not None and self._may_exceed(container)

    def _may_exceed(self, container: _Container) -> bool:
        size = container.size + self.written.size - container.size_at
        return not container.is_known or size > self.limit or self._may_have_too_many_files(container)

    def counts_files(self, name: str) -> bool:
        """Return whether the files of a container have to be counted, too."""
        container = self._containers.get(name)
        return container is not None and (not container.is_known or self._may_have_too_many_files(container))

    def _may_have_too_many_files(self, container: _Container) -> bool:
        return container.files + self.written.files - container.files_at > self.max_files

    def excess(self, use: DiskUse) -> str:
        """Return in a sentence by how much the limit is exceeded; empty if it is not."""
        if use.size > self.limit:
            return f"the job had written {format_size(use.size)} to the disk; the limit is {format_size(self.limit)}"
        if use.files is not None and use.files > self.max_files:
            return f"the job had {use.files} files and directories on the disk; the limit is {self.max_files}"
        return ""
