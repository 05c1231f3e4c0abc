"""Docker's multiplexed log stream (API reference, "Attach to a container", stream format) as frames."""

from collections.abc import Iterator
from typing import Final

from jobs.engine.base import Frame, StreamName
from jobs.engine.docker.stream import ByteStream
from jobs.errors import EngineRefused, EngineUnavailable

_STREAMS: Final[dict[int, StreamName]] = {1: "stdout", 2: "stderr"}
_ENGINE_ERROR = 3  # a frame in which the engine says why it cannot go on
_HEADER = 8  # stream, three zeros, big-endian length
_LONGEST_FRAME = 1024**2  # the engine cuts lines at 16 KiB; more is no log
_IDLE = 0.25  # seconds


def read_frames(stream: ByteStream, *, skip: int, tell_idle: bool) -> Iterator[Frame | None]:
    """The frames after the first `skip`; with `tell_idle` a None whenever none came for 250 ms.

    Raises `Interrupted`, `EngineUnavailable` (the stream broke: read again), `EngineRefused` (the engine
    cannot read its own log).
    """
    while True:
        if tell_idle and not stream.ready(_IDLE):
            yield None
        header = stream.read(_HEADER)
        if not header:
            return
        kind, size = header[0], int.from_bytes(header[4:], "big")
        if size > _LONGEST_FRAME or kind not in (*_STREAMS, _ENGINE_ERROR):
            raise EngineRefused("the engine's log cannot be read: it is not a sequence of frames")
        payload = stream.read(size) if size else b""
        if len(payload) < size:
            raise EngineUnavailable("the engine's answer ended too early")
        if kind == _ENGINE_ERROR:
            raise EngineRefused(f"the engine cannot read the log: {payload.decode(errors='replace').strip()}"[:1000])
        if skip:
            skip -= 1
            continue
        moment, _, data = payload.partition(b" ")
        yield Frame(stream=_STREAMS[kind], time=moment.decode("ascii", "replace"), data=data)
