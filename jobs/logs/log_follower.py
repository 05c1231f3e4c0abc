"""Reads a container's log from where the job's row says, even if the engine has rotated the log since."""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain, takewhile
from typing import Final

from jobs.engine.protocol import Engine, Frames
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from jobs.logs.log_writer import LogWriter
from orchestrator_site.base.intervals import LogIntervals

logger = logging.getLogger(__name__)

_TAIL: Final = 64  # frames: many more than an engine loses of a followed log
_RECOGNIZED: Final = 3  # frames that are compared to find out where reading stopped


class LogFollower:
    """A reader of one container's log, which passes it to a `LogWriter`.

    Its methods raise what the engine's and the writer's methods raise; it may not be used any more after that.
    """

    def __init__(
        self, engine: Engine, container: str, writer: LogWriter, interrupt: Interrupt, intervals: LogIntervals = LogIntervals()
    ) -> None:
        self._engine = engine
        self._container = container
        self._writer = writer
        self._interrupt = interrupt
        self._intervals = intervals
        self._followed: Iterator[Frames | None] = iter(())  # what is left to read of the followed log, while that is open
        self._open_log = ExitStack()
        self._last: Frames | None = None  # the latest frames that were read

    def follow(self) -> None:
        """Store the log as it is printed, but no faster than the job's callback accepts it.

        Return when the process has ended, or when no more lines are wanted. If not all was read by then, the log stays open for
        `read_rest`, until `close`. Raise `EngineRefused` if the engine cannot read its own log.
        """
        if not self._wait_for_callback():
            return
        checked_at = time.monotonic()
        with ExitStack() as opened:
            log = opened.enter_context(self._frames(following=True))
            for frames in log:
                if not self._write(frames):
                    return
                ended = not self._wait_for_callback()
                now = time.monotonic()
                # A job that prints a lot is decided when its process ends, even if much of the log is still unread.
                if not ended and frames is not None and now - checked_at >= self._intervals.exit_check:
                    checked_at, ended = now, self._has_ended()
                if ended:
                    self._followed, self._open_log = log, opened.pop_all()
                    return
        self._writer.write(None)  # the engine may have rotated these lines away by the time the log is read again
        self._engine.wait(self._container, self._interrupt, timeout=self._intervals.exit_check)

    def read_rest(self) -> None:
        """Store the rest of an ended process's log, including unfinished lines.

        Wait for the callback while it keeps up; then lines that do not fit into its backlog are stored, but not published.
        A followed log that is open is read to its end. Then the engine is asked for its last frames without following,
        because some engines lose the last line of a followed log.
        """
        if not self._writer.wants_more:
            return
        deadline = time.monotonic() + self._intervals.rest
        try:
            self._wait_for_space(deadline)
            if self._read_followed(deadline):
                with self._frames(following=False) as frames:
                    self._write_all(frames, deadline)
            self._writer.finish()
        except EngineRefused as error:
            logger.error("the engine cannot read the rest of the log: %s", error, extra={"container": self._container})
            self._writer.finish(unreadable=True)

    def close(self) -> None:
        """Close the log, if it is open."""
        self._followed = iter(())
        self._open_log.close()

    def _read_followed(self, deadline: float) -> bool:
        """Store the rest of the followed log, if it is open; return whether more is wanted.

        If it breaks off, or pauses although the process has ended, what is missing is read again: its end may never come. To read
        all again instead took a quarter of what the log cost.
        """
        try:
            return self._write_all(takewhile(_is_something, self._followed), deadline)
        except (EngineRefused, EngineUnavailable) as error:
            logger.warning("a followed log broke off: %s", error, extra={"container": self._container})
            return True
        finally:
            self.close()

    def _write_all(self, log: Iterator[Frames | None], deadline: float) -> bool:
        for frames in log:
            if not self._write(frames):
                return False
            self._wait_for_space(deadline)
        return True

    def _write(self, frames: Frames | None) -> bool:
        self._last = frames or self._last
        return self._writer.write(frames)

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
        if self._engine.traits.finds_log_positions:
            place = self._writer.position
            with self._engine.logs(self._container, skip=0, follow=following, interrupt=self._interrupt, after=place) as frames:
                yield frames
            return
        skip = self._writer.frames
        if not following and (missing := self._read_tail()) is not None:
            yield iter(missing)
            return
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

    def _read_tail(self) -> list[Frames] | None:
        """Return the frames that follow the last ones that were read, or None if these are not near the end of the log."""
        if self._last is None or not self._writer.can_resume_anywhere:
            return None
        with self._open(0, following=False, tail=_TAIL) as log:
            tail = [frame for frames in log if frames is not None for frame in frames]
        known = list(self._last.part(-_RECOGNIZED))
        ends = [end for end in range(len(known), len(tail) + 1) if tail[end - len(known) : end] == known]
        return [Frames(frame.stream, [frame.time], [frame.data]) for frame in tail[ends[0] :]] if len(ends) == 1 else None

    def _open(self, skip: int, *, following: bool, tail: int | None = None) -> AbstractContextManager[Iterator[Frames | None]]:
        return self._engine.logs(self._container, skip=skip, follow=following, interrupt=self._interrupt, tail=tail)


def _is_something(frames: Frames | None) -> bool:
    return frames is not None
