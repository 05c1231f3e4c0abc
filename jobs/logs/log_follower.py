"""Reads a container's log from where the job's row says, even if the engine has rotated the log since."""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain

from jobs.engine.protocol import Engine, Frames
from jobs.errors import EngineRefused
from jobs.interrupt import Interrupt
from jobs.logs.log_writer import LogWriter
from orchestrator_site.base.intervals import LogIntervals

logger = logging.getLogger(__name__)


class LogFollower:
    """A reader of one container's log, which passes it to a `LogWriter`.

    Its methods raise what the engine's and the writer's methods raise.
    """

    def __init__(
        self, engine: Engine, container: str, writer: LogWriter, interrupt: Interrupt, intervals: LogIntervals = LogIntervals()
    ) -> None:
        self._engine = engine
        self._container = container
        self._writer = writer
        self._interrupt = interrupt
        self._intervals = intervals

    def follow(self) -> None:
        """Store the log as it is printed, but no faster than the job's callback accepts it.

        Return when the process has ended, or when no more lines are wanted. Raise `EngineRefused` if the engine cannot
        read its own log.
        """
        if not self._wait_for_callback():
            return
        checked_at = time.monotonic()
        with self._frames(following=True) as frames:
            for frame in frames:
                if not self._writer.write(frame) or not self._wait_for_callback():
                    return
                now = time.monotonic()
                # A job that prints a lot is decided when its process ends, even if much of the log is still unread.
                if frame is not None and now - checked_at >= self._intervals.exit_check:
                    checked_at = now
                    if self._has_ended():
                        return
        self._writer.write(None)  # the engine may have rotated these lines away by the time the log is read again
        self._engine.wait(self._container, self._interrupt, timeout=self._intervals.exit_check)

    def read_rest(self) -> None:
        """Store the rest of an ended process's log, including unfinished lines.

        Wait for the callback while it keeps up; then lines that do not fit into its backlog are stored, but not published.
        The log is read again without following it, because some engines lose the last line of a followed log.
        """
        if not self._writer.wants_more:
            return
        deadline = time.monotonic() + self._intervals.rest
        try:
            self._wait_for_space(deadline)
            with self._frames(following=False) as frames:
                for some in frames:
                    if not self._writer.write(some):
                        break
                    self._wait_for_space(deadline)
            self._writer.finish()
        except EngineRefused as error:
            logger.error("the engine cannot read the rest of the log: %s", error, extra={"container": self._container})
            self._writer.finish(unreadable=True)

    def _wait_for_callback(self) -> bool:
        """Wait while the backlog of undelivered events is full; return False if the process has ended by then.

        The engine keeps what is printed in this time. The log stays open, because a reopened log is read from its start.
        """
        pause = self._intervals.backlog_check
        while self._writer.backlog.is_full():
            self._engine.wait(self._container, self._interrupt, timeout=pause)
            if self._has_ended():
                return False
            pause = min(2 * pause, self._intervals.backlog_check_max)
        return True

    def _wait_for_space(self, deadline: float) -> None:
        """Wait while the backlog of an ended process is full, until the callback has stalled or the deadline has passed.

        From then on lines are dropped instead: a callback that does not accept events must not hold up the end of its job.
        """
        backlog = self._writer.backlog
        give_up = min(deadline, time.monotonic() + self._intervals.rest_stall)
        while not backlog.may_drop and backlog.is_full():
            if time.monotonic() < give_up:
                self._interrupt.sleep(self._intervals.backlog_check)
            else:
                backlog.may_drop = True

    def _has_ended(self) -> bool:
        return self._engine.inspect(self._container).phase == "ended"

    @contextmanager
    def _frames(self, *, following: bool) -> Iterator[Iterator[Frames | None]]:
        """Open the log after the last stored frame or, if it was rotated since, at the first frame that is left."""
        skip = self._writer.stored_frames
        if skip:
            with self._open(skip - 1, following=False) as rest:
                first = next(rest, None)
                is_as_left = first is not None and self._writer.rotation.is_last_accepted(first)
                if first is not None and is_as_left and not following:
                    yield chain([first.part(1)] if len(first) > 1 else [], rest)
                    return
            if not is_as_left:
                self._writer.rotation.restart()
                skip = 0
        with self._open(skip, following=following) as frames:
            yield frames

    def _open(self, skip: int, *, following: bool) -> AbstractContextManager[Iterator[Frames | None]]:
        return self._engine.logs(self._container, skip=skip, follow=following, interrupt=self._interrupt)
