"""Decodes Docker's multiplexed log stream (API reference, "Attach to a container", stream format) into frames."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from jobs.engine.answer_stream import ANSWER_TOO_SHORT, ByteStream
from jobs.engine.protocol import Frames, StreamName
from jobs.errors import EngineRefused, EngineUnavailable

_STREAMS: Final[dict[int, StreamName]] = {1: "stdout", 2: "stderr"}
_ENGINE_ERROR: Final = 3  # a frame in which the engine says why it cannot continue
_KINDS: Final = (*_STREAMS, _ENGINE_ERROR)
_NO_FRAME: Final = -1  # of no kind
_HEADER: Final = Struct(">B3xI")  # stream, three zeros, length of the payload
_HEADER_BYTES: Final = _HEADER.size
_PIECE_BYTES: Final = 16 * 1024  # the engine cuts longer lines into pieces of this size
_MAX_FRAME_BYTES: Final = 1024**2  # anything larger is not a log


def read_frames(stream: ByteStream, *, skip: int, max_pause: float | None) -> Iterator[Frames | None]:
    """Yield the frames after the first `skip`, and None whenever no byte comes for `max_pause` seconds (None: never).

    Raise `Interrupted`, `EngineUnavailable` if the stream breaks off, and `EngineRefused` if the engine cannot read its
    own log.
    """
    decoder = _Decoder(skip)
    while True:
        if max_pause is not None and not stream.ready(max_pause):
            yield None
        received = stream.read()
        if not received:
            break
        yield from decoder.decode(received)
    if decoder.undecoded:
        raise EngineUnavailable(ANSWER_TOO_SHORT)


class _Decoder:
    """A decoder of a log that is received in pieces, which end anywhere."""

    def __init__(self, skip: int) -> None:
        self.undecoded = b""  # the beginning of a frame
        self._skip = skip
        self._long_lines = _LongLines()

    def decode(self, received: bytes) -> Iterator[Frames]:
        """Yield the frames that are complete now, as many together as are of one stream. Raise `EngineRefused`.

        The loop is short and calls little, because there is a frame for each line.
        """
        log, position, skip, long_lines = self.undecoded + received, 0, self._skip, self._long_lines
        available, kind = len(log), _NO_FRAME
        times: list[bytes] = []  # these two are of the frames to yield next, which are of this kind
        data: list[bytes] = []
        while position + _HEADER_BYTES <= available:
            previous, (kind, size) = kind, _HEADER.unpack_from(log, position)
            if kind != previous or size > _MAX_FRAME_BYTES:
                if times:
                    yield _frames(previous, times, data)
                    times, data = [], []
                if kind not in _KINDS or size > _MAX_FRAME_BYTES:
                    raise EngineRefused("the engine's log cannot be read: it is not a sequence of frames")
            start = position + _HEADER_BYTES
            end = start + size
            if end > available:
                break
            if kind == _ENGINE_ERROR:
                raise EngineRefused(f"the engine cannot read the log: {log[start:end][:1000].decode(errors='replace').strip()}")
            position = end
            moment, _, line = log[start:end].partition(b" ")
            if line[-1:] != b"\n" or long_lines.open_pieces:
                line = long_lines.restore_line_feeds(kind, moment, line)
            if skip:
                skip -= 1
            else:
                times.append(moment)
                data.append(line)
        self.undecoded, self._skip = log[position:], skip
        if times:
            yield _frames(kind, times, data)


def _frames(kind: int, times: list[bytes], data: list[bytes]) -> Frames:
    return Frames(_STREAMS[kind], [time.decode("ascii", "replace") for time in times], data)


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
