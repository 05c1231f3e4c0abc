"""Decodes Docker's multiplexed log stream (API reference, "Attach to a container", stream format) into frames."""

from collections.abc import Iterator
from typing import Final

from jobs.engine.docker.transport import ANSWER_TOO_SHORT
from jobs.engine.docker.transport.answer_stream import ByteStream
from jobs.engine.protocol import Frame, StreamName
from jobs.errors import EngineRefused, EngineUnavailable

_STREAMS: Final[dict[int, StreamName]] = {1: "stdout", 2: "stderr"}
_ENGINE_ERROR: Final = 3  # a frame in which the engine says why it cannot continue
_KINDS: Final = (*_STREAMS, _ENGINE_ERROR)
_HEADER_BYTES: Final = 8  # stream, three zeros, big-endian length
_PIECE_BYTES: Final = 16 * 1024  # the engine cuts longer lines into pieces of this size
_MAX_FRAME_BYTES: Final = 1024**2  # anything larger is not a log


def read_frames(stream: ByteStream, *, skip: int, max_pause: float | None) -> Iterator[Frame | None]:
    """Yield the frames after the first `skip`, and None whenever no byte comes for `max_pause` seconds (None: never).

    Raise `Interrupted`, `EngineUnavailable` if the stream breaks off, and `EngineRefused` if the engine cannot read its
    own log.
    """
    long_lines = _LongLines()
    while True:
        if max_pause is not None and not stream.ready(max_pause):
            yield None
        header = stream.read(_HEADER_BYTES)
        if not header:
            return
        kind, size = header[0], int.from_bytes(header[4:], "big")
        if size > _MAX_FRAME_BYTES or kind not in _KINDS:
            raise EngineRefused("the engine's log cannot be read: it is not a sequence of frames")
        payload = stream.read(size) if size else b""
        if len(payload) < size:
            raise EngineUnavailable(ANSWER_TOO_SHORT)
        if kind == _ENGINE_ERROR:
            raise EngineRefused(f"the engine cannot read the log: {payload[:1000].decode(errors='replace').strip()}")
        moment, _, data = payload.partition(b" ")
        if long_lines.open_pieces or not data.endswith(b"\n"):  # a call for each frame would take a tenth of the time
            data = long_lines.restore_line_feeds(kind, moment, data)
        if skip:
            skip -= 1
            continue
        yield Frame(stream=_STREAMS[kind], time=moment.decode("ascii", "replace"), data=data)


class _LongLines:
    """Lines over 16 KiB, whose line feeds Docker before 23.0 omits (docs/adr/0010).

    All pieces of a line have the time of the first, and all but the last have 16 KiB. So a shorter piece without a line
    feed was the end of its line if the next frame of its stream has another time.
    """

    def __init__(self) -> None:
        self.open_pieces: dict[int, bytes] = {}  # stream → time of its latest frame, if that may have ended a long line

    def restore_line_feeds(self, stream: int, moment: bytes, data: bytes) -> bytes:
        """Return the data of the next frame, preceded by the line feed that was omitted before it."""
        if not data:  # the line feed after the last piece of a line whose length is a multiple of 16 KiB
            data = b"\n"
        previous = self.open_pieces.pop(stream, moment)
        if len(data) < _PIECE_BYTES and not data.endswith(b"\n"):
            self.open_pieces[stream] = moment
        return data if previous == moment else b"\n" + data
