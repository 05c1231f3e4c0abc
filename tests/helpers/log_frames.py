"""Frames of a log, alone and together."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from jobs.engine.protocol import Frame, Frames


def alone(frame: Frame) -> Frames:
    return Frames(frame.stream, [frame.time], [frame.data])


def together(frames: Iterable[Frame]) -> Iterator[Frames]:
    """Yield frames as an engine does that has all of them at once: neighbours of one stream together."""
    for stream, some in groupby(frames, key=lambda frame: frame.stream):
        neighbours = list(some)
        yield Frames(stream, [frame.time for frame in neighbours], [frame.data for frame in neighbours])


def flat(read: Iterable[Frames | None]) -> list[Frame]:
    """Return the frames that were read, without the pauses."""
    return [frame for frames in read if frames is not None for frame in frames]
