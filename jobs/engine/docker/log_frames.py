"""Docker's multiplexed log stream (API reference, "Attach to a container", stream format) as frames."""

from collections.abc import Iterator
from typing import Final

from jobs.engine.docker.transport.answer_stream import ByteStream
from jobs.engine.protocol import Frame, StreamName
from jobs.errors import EngineRefused, EngineUnavailable

_STREAMS: Final[dict[int, StreamName]] = {1: "stdout", 2: "stderr"}
_ENGINE_ERROR = 3  # a frame in which the engine says why it cannot go on
_KINDS: Final = (*_STREAMS, _ENGINE_ERROR)
_HEADER = 8  # stream, three zeros, big-endian length
_LONGEST_PIECE: Final = 16 * 1024  # bytes: where the engine cuts lines
_LONGEST_FRAME = 1024**2  # more is no log
_IDLE = 0.25  # seconds


def read_frames(stream: ByteStream, *, skip: int, tell_idle: bool) -> Iterator[Frame | None]:
    """The frames after the first `skip`; with `tell_idle` a None whenever none came for 250 ms.

    Raises `Interrupted`, `EngineUnavailable` (the stream broke: read again), `EngineRefused` (the engine
    cannot read its own log).
    """
    long_lines = _LongLines()
    while True:
        if tell_idle and not stream.ready(_IDLE):
            yield None
        header = stream.read(_HEADER)
        if not header:
            return
        kind, size = header[0], int.from_bytes(header[4:], "big")
        if size > _LONGEST_FRAME or kind not in _KINDS:
            raise EngineRefused("the engine's log cannot be read: it is not a sequence of frames")
        payload = stream.read(size) if size else b""
        if len(payload) < size:
            raise EngineUnavailable("the engine's answer ended too early")
        if kind == _ENGINE_ERROR:
            raise EngineRefused(f"the engine cannot read the log: {payload[:1000].decode(errors='replace').strip()}")
        moment, _, data = payload.partition(b" ")
        if long_lines.unsure or not data.endswith(b"\n"):  # else a call for each frame would cost a tenth of the reading
            data = long_lines.completed(kind, moment, data)
        if skip:
            skip -= 1
            continue
        yield Frame(stream=_STREAMS[kind], time=moment.decode("ascii", "replace"), data=data)


class _LongLines:
    """Put back the line feeds of lines over 16 KiB.

    Docker before 23.0 leaves them out when it reads a log of its driver `local`. All pieces of a line have the time of the
    first, and all but the last have 16 KiB. So a shorter one without a line feed was the end of its line if a frame of another
    time follows in its stream. Where none does, nobody can tell. With other drivers and versions nothing looks like this.
    """

    def __init__(self) -> None:
        self.unsure: dict[int, bytes] = {}  # stream → time of its latest frame, where that may have been such a piece

    def completed(self, stream: int, moment: bytes, data: bytes) -> bytes:
        """Return the next frame's data with what was left out before it."""
        if not data:  # what is left of a line of 16 KiB or a multiple of it
            data = b"\n"
        before = self.unsure.pop(stream, moment)
        if len(data) < _LONGEST_PIECE and not data.endswith(b"\n"):
            self.unsure[stream] = moment
        return data if before == moment else b"\n" + data
