"""Attacks what reads the logs of an engine: the frames of a log, and the chunks of the answer that they come in."""

import socket
from collections.abc import Sequence
from http.client import HTTPResponse
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

from jobs.engine.answer_stream import ByteStream
from jobs.engine.docker.log_frames import read_frames
from jobs.engine.protocol import Frame
from jobs.errors import EngineRefused, EngineUnavailable
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals
from tests.fuzzing.inputs import logs

_HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def attack(random: Random) -> None:
    if random.random() < 0.7:
        attack_frames(random)
    else:
        attack_chunks(random)


def attack_frames(random: Random) -> None:
    """Read a log: it is the same, its error included, wherever what is received ends, and from any frame on."""
    log = logs.log(random)
    whole, error = read([log.data])
    assert log.frames is None or (whole, error) == (log.frames, ""), "another log than was sent"
    skip = random.choice((0, 0, 1, 3, 100))
    cut = read(logs.pieces(random, log.data), skip)
    assert cut == (whole[skip:], error), f"another log in pieces, after {skip}: {error} {cut[1]}"


def attack_chunks(random: Random) -> None:
    """Read a chunked body: it is what was sent, or the connection broke."""
    body = logs.chunked_body(random)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(_HEAD + body.data)
        theirs.shutdown(socket.SHUT_WR)
        with HTTPResponse(ours) as response:
            response.begin()
            try:
                answer: Any = SimpleNamespace(_fp=response)
                stream = ByteStream(answer, Interrupt(), EngineIntervals())
                content = b"".join(iter(stream.read, b""))
            except EngineUnavailable:
                content = None
    assert content == body.content, f"another body: {content!r}"[:200]


class _Body:
    """What `read_frames` uses of a `ByteStream`."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self) -> bytes:
        return next(self._pieces, b"")


def read(pieces: Sequence[bytes], skip: int = 0) -> tuple[list[Frame], str]:
    """Return the frames of a log, and the error that ends it."""
    found: list[Frame] = []
    try:
        for frames in read_frames(cast("ByteStream", _Body([piece for piece in pieces if piece])), skip=skip, max_pause=None):
            found += frames or ()
    except (EngineRefused, EngineUnavailable) as error:
        return found, f"{type(error).__name__}: {error}"
    return found, ""
