"""Watches what the jobs of a worker write to the engine's disk, in a thread of its own: a measurement may take seconds."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from jobs.engine.protocol import DiskSpace, DiskUse, Engine
from jobs.errors import ContainerNotFound, JobError, Unmeasurable
from jobs.interrupt import Interrupt
from jobs.running.runner import Run
from jobs.states import State
from jobs.transfers import format_size
from jobs.worker.disk.ledger import Ledger
from jobs.worker.disk.relief import Relief
from orchestrator_site.base.intervals import DiskIntervals
from orchestrator_site.base.log_context import log_context

logger = logging.getLogger(__name__)

# Tries in a row to measure a container whose files prevent that, before its job is ended. Each brings more of them from a slow
# disk into memory, so a job that is within its limit is measured in the end.
_MAX_TRIES: Final = 5


class DiskWatch:
    """A thread that ends jobs which exceed `limit` bytes, or fill the disk, from `start` to `stop`; a `DiskLimit`.

    It does nothing if the engine limits the disk itself.
    """

    def __init__(self, engine: Engine, node: str, limit: int, intervals: DiskIntervals = DiskIntervals()) -> None:
        """`node` is the name in log messages."""
        self._engine = engine
        self._is_superfluous = engine.traits.limits_disk
        self._node = node
        self._intervals = intervals
        self._changed = threading.Condition()  # of the next three, for a first run and for the end
        self._ledger = Ledger(limit, intervals)
        self._runs: dict[str, Run] = {}  # by the name of the container
        self._tries: dict[str, int] = {}  # in a row in which a container turned out to be `Unmeasurable`
        self._ending: dict[str, float] = {}  # since when a job should have been decided, by `time.monotonic`
        self._relief = Relief(intervals)
        self._stopping = threading.Event()

    def start(self) -> None:
        if not self._is_superfluous:
            threading.Thread(target=self._watch, name="disk watch", daemon=True).start()

    def stop(self) -> None:
        """Stop watching. Does not wait for a measurement in progress."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def add(self, run: Run) -> None:
        """Watch a job from now on. Its first claim means that its container does not exist yet."""
        if self._is_superfluous:
            return
        with self._changed:
            self._ledger.see(self._engine.disk_space())
            self._ledger.add(run.container_name, time.monotonic(), is_new=run.claim.number == 1)
            self._runs[run.container_name] = run
            self._changed.notify_all()

    def remove(self, run: Run) -> None:
        with self._changed:
            self._ledger.remove(run.container_name)
            self._runs.pop(run.container_name, None)
            self._tries.pop(run.container_name, None)

    def excess_of_ended(self, container: str) -> str:
        """See `DiskLimit`. Most jobs cannot have exceeded it, by what was written to the disk while they ran."""
        if self._is_superfluous:
            return ""
        with self._changed:
            self._ledger.see(self._engine.disk_space())
            if not self._ledger.may_exceed(container):
                return ""
        use = self._measure(container)
        return self._ledger.excess(use) if use else ""

    # -- the thread ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        with log_context(node=self._node):
            while self._wait_for_runs():
                try:
                    pause = 0.0 if self._look() else self._intervals.look
                except Exception:
                    logger.exception("an unexpected error in the disk watch")
                    pause = self._intervals.retry
                self._stopping.wait(pause)

    def _wait_for_runs(self) -> bool:
        """Wait, without waking up, until there is a job to watch. Return False to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._runs or self._stopping.is_set())
        return not self._stopping.is_set()

    def _look(self) -> bool:
        """Do what is due now. Return whether there may be more."""
        with self._changed:
            running = {name: run for name, run in self._runs.items() if run.status == State.RUNNING}
            space = self._engine.disk_space()
            self._ledger.see(space)
        self._insist(running)
        watched = {name: run for name, run in running.items() if not run.disk_excess}
        if not watched:
            return False
        if space and self._relief.is_needed(space, time.monotonic()):
            self._relieve(space, watched)
        with self._changed:
            due = self._ledger.due(watched, time.monotonic())
        if due is None:
            return False
        use = self._measure(due)
        if excess := self._ledger.excess(use) if use else self._obstacle(due, _MAX_TRIES):
            self._end(watched[due], excess)
        return True

    def _measure(self, name: str, *, count_files: bool = False) -> DiskUse | None:
        """Return what a container has written, or None if that cannot be found out now."""
        with self._changed:
            written = self._ledger.written
            count_files = count_files or self._ledger.counts_files(name)
        began = time.monotonic()
        try:
            use = self._engine.disk_use(name, count_files=count_files)
        except JobError as error:
            if not isinstance(error, ContainerNotFound):  # which the job's own thread finds out, too
                logger.warning("cannot measure what a job has written: %s", error, extra={"container": name})
            with self._changed:
                self._ledger.put_off(name, began, time.monotonic())
                if isinstance(error, Unmeasurable):
                    self._tries[name] = self._tries.get(name, 0) + 1
            return None
        with self._changed:
            self._tries.pop(name, None)
            self._ledger.record(name, use, written, began, time.monotonic())
        return use

    def _obstacle(self, name: str, tries: int) -> str:
        """Return in a sentence that the files of a container prevent its measurement; empty if they did fewer times in a row."""
        with self._changed:
            is_reached = self._tries.get(name, 0) >= tries
        return "the job had too many or too deep files on the disk: they cannot be measured" if is_reached else ""

    def _end(self, run: Run, excess: str) -> None:
        logger.warning("a job is ended: %s", excess, extra={"container": run.container_name})
        self._ending[run.container_name] = time.monotonic()
        run.end_for_disk(excess)

    def _insist(self, running: Mapping[str, Run]) -> None:
        """Kill processes of jobs that should have been decided by now: the disk does not wait for the database."""
        now = time.monotonic()
        self._ending = {name: since for name, since in self._ending.items() if name in running}
        for name, since in self._ending.items():
            if now - since < self._intervals.unheeded:
                continue
            self._ending[name] = now
            try:
                self._engine.bound(Interrupt(), self._intervals.kill).stop(name, 0)
            except JobError as error:
                logger.warning("cannot end a job that has written too much: %s", error, extra={"container": name})

    def _relieve(self, space: DiskSpace, watched: Mapping[str, Run]) -> None:
        """End the job that uses the most of an almost full disk, if that would help."""
        uses = {name: use for name in watched if (use := self._measure(name, count_files=not space.is_short_of_bytes))}
        for name in watched:
            if obstacle := self._obstacle(name, 1):
                self._end(watched[name], f"the disk was almost full, and {obstacle}")
                return
        victim = self._relief.choose(space, uses)
        if victim is None:
            logger.warning("the engine's disk is almost full, and no job here uses much of it")
            return
        used = format_size(uses[victim].size)
        self._end(watched[victim], f"the disk was almost full, and the job used {used} of it, more than the others here")
