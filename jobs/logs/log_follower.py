"""Reading a container's log from where its job's row says, whatever became of the log meanwhile."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from jobs.engine.protocol import Engine, Frame
from jobs.errors import EngineRefused
from jobs.interrupt import Interrupt
from jobs.logs.log_writer import Reader

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5  # how often a busy reader looks whether the process has ended
_SHORTEST_PAUSE: Final = 0.25  # seconds between looks at a callback that is behind, doubled at each
_LONGEST_PAUSE: Final = 4.0


def follow(engine: Engine, name: str, reader: Reader, interrupt: Interrupt) -> None:
    """Store the log as it comes, no faster than the job's callback takes it.

    Returns when the process has ended or nobody wants the rest; the caller looks which. Raises what the engine's calls
    raise, `EngineRefused` where it cannot read its own log.
    """
    if not _wait_for_callback(engine, name, reader, interrupt):
        return
    looked = time.monotonic()
    with _frames(engine, name, reader, interrupt, following=True) as frames:
        for frame in frames:
            if not reader.take(frame) or not _wait_for_callback(engine, name, reader, interrupt):
                return
            now = time.monotonic()
            if frame is not None and now - looked >= _LOOK_SECONDS:
                # Much log: it is decided when the process ends, however much is still to be read.
                looked = now
                if engine.inspect(name).phase == "ended":
                    return
    reader.take(None)  # what it holds may be gone from the engine's log when that is read again
    engine.wait(name, interrupt, timeout=_LOOK_SECONDS)


def read_rest(engine: Engine, name: str, reader: Reader, interrupt: Interrupt) -> None:
    """Store what the log of an ended process still holds, its unfinished last lines too. Waits for no callback.

    It is read again without following: some engines lose the last line of a followed log.
    """
    try:
        with _frames(engine, name, reader, interrupt, following=False) as frames:
            for frame in frames:
                if not reader.take(frame):
                    break
        reader.finish()
    except EngineRefused as error:
        logger.error("the engine cannot read the rest of the log: %s", error, extra={"container": name})
        reader.finish(unreadable=True)


def _wait_for_callback(engine: Engine, name: str, reader: Reader, interrupt: Interrupt) -> bool:
    """Return at once unless the job's callback is behind; then once it is not, or False once the process has ended.

    The engine keeps what is printed meanwhile. Its log stays open: to open it again is to read it from its start.
    """
    pause = _SHORTEST_PAUSE
    while reader.callback_is_behind():
        engine.wait(name, interrupt, timeout=pause)
        if engine.inspect(name).phase == "ended":
            return False
        pause = min(2 * pause, _LONGEST_PAUSE)
    return True


@contextmanager
def _frames(
    engine: Engine, name: str, reader: Reader, interrupt: Interrupt, *, following: bool
) -> Iterator[Iterator[Frame | None]]:
    """The frames behind the last stored one; where the log is not as it was left, all that there are."""
    skip = reader.frames
    if skip:
        with engine.logs(name, skip=skip - 1, follow=False, interrupt=interrupt) as left:
            as_left = reader.is_last(next(left, None))
            if as_left and not following:
                yield left
                return
        if not as_left:
            reader.rotated()
            skip = 0
    with engine.logs(name, skip=skip, follow=following, interrupt=interrupt) as frames:
        yield frames
