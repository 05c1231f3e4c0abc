"""Recognizes frames of a rotated log that were read before. Pure: no clock, no I/O."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from operator import lt
from typing import Final

from jobs.engine.protocol import Frame, Frames, StreamName

# Bytes that Docker's log driver `local` stores besides the text (measured).
_LINE_OVERHEAD: Final = 28
_PIECE_OVERHEAD: Final = 104  # of a piece of a line over 16 KiB


class FrameKind(Enum):
    """The relation of a frame to those read before it from the same stream."""

    NEW = auto()
    NEW_AFTER_GAP = auto()  # frames between the last one and this one may have been lost
    REPEATED = auto()
    REPEATED_AFTER_GAP = auto()  # the engine went back to here, and may have skipped frames before it did


class RotationDetector:
    """A filter that separates new frames from repeated ones.

    An engine that rotates a log while it is being followed skips some frames and repeats others (measured on Docker 20.10).
    Times increase within a stream, except that pieces of a long line have the same, so a repeated frame has a time that was
    seen before. They decrease when the host's clock is set back. So this counts only after a restart of the reading, or when
    the engine's first log file must be full, since nothing is rotated before that.
    """

    def __init__(self, last_times: Mapping[StreamName, str], *, engine_bytes: int, first_file_bytes: float) -> None:
        """Continue after the frames that are stored.

        `last_times` are the times of each stream's last stored frame, empty if there is none. `engine_bytes` is what the
        stored frames take on the engine's disk, and `first_file_bytes` the size at which the engine starts a second file:
        infinite if it says itself where it has lost frames.
        """
        self.last_times = dict(last_times)
        self.engine_bytes = engine_bytes
        self._first_file_bytes = first_file_bytes
        self._restarted: set[StreamName] = set()  # streams that have had no frame since the restart
        self._repeating: set[StreamName] = set()
        self._between_lines: set[StreamName] = set()  # streams whose last frame ended a line: the next one has a later time

    @property
    def may_have_rotated(self) -> bool:
        """Whether the engine's first file may be full: nothing is rotated before that."""
        return self.engine_bytes >= self._first_file_bytes

    def is_last_accepted(self, frames: Frames) -> bool:
        """Return whether the first of these is the frame that was accepted last, which means that the log was not rotated."""
        return frames.times[0] == self.last_times[frames.stream]

    def restart(self) -> None:
        """Expect the first frame that the engine still has, because the log was rotated since it was last read."""
        self._restarted = set(self.last_times)

    def accept_all(self, frames: Frames) -> bool:
        """Record frames as read if all of them are new, in the usual case; return False if `classify` has to decide."""
        stream, times = frames.stream, frames.times
        if stream in self._restarted or stream in self._repeating or not frames.end_in_line_feeds:
            return False
        engine_bytes = self.engine_bytes + sum(map(len, frames.data)) + _LINE_OVERHEAD * len(frames)
        if engine_bytes >= self._first_file_bytes and not _increase([self.last_times[stream], *times]):
            return False
        self.last_times[stream], self.engine_bytes = times[-1], engine_bytes
        self._between_lines.add(stream)
        return True

    def classify(self, frame: Frame) -> FrameKind:
        """Return the kind of the next frame. Call `accept` afterwards if it is new."""
        stream, last_time = frame.stream, self.last_times[frame.stream]
        first_after_restart = stream in self._restarted
        self._restarted.discard(stream)
        is_old = frame.time < last_time or (frame.time == last_time and stream in self._between_lines and not first_after_restart)
        if is_old and (first_after_restart or self.may_have_rotated):
            went_back = not first_after_restart and stream not in self._repeating
            self._repeating.add(stream)
            return FrameKind.REPEATED_AFTER_GAP if went_back else FrameKind.REPEATED
        if frame.time > last_time:
            self._repeating.discard(stream)
            return FrameKind.NEW_AFTER_GAP if first_after_restart and last_time else FrameKind.NEW
        if first_after_restart:
            self._repeating.add(stream)
        return FrameKind.REPEATED if stream in self._repeating else FrameKind.NEW

    def accept(self, frame: Frame) -> None:
        """Record a new frame as read."""
        self.last_times[frame.stream] = frame.time
        if frame.data.endswith(b"\n"):
            self._between_lines.add(frame.stream)
            self.engine_bytes += len(frame.data) + _LINE_OVERHEAD
        else:
            self._between_lines.discard(frame.stream)
            self.engine_bytes += len(frame.data) + _PIECE_OVERHEAD


def _increase(times: Sequence[str]) -> bool:
    return all(map(lt, times, times[1:]))
