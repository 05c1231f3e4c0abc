"""Attacks the API at the level of sockets: what a client sends must be answered or refused, in time, and never with a 500."""

import json
import re
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from random import Random
from typing import Any, Final

from tests.fuzzing.inputs import requests

_DEADLINE: Final = 20.0  # seconds for all that was sent on a connection
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
# 5xx for what a client did: it used a transfer coding or a version of HTTP that a server need not support.
_PROTOCOL: Final = {501, 505}
_OTHER_FORMS: Final = (b"admin", b"static", b"readyz")  # paths whose answers are HTML, or say more than an error
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


class ApiAttack:
    """Sends hostile requests to a service, each time on a new connection."""

    def __init__(self, api: tuple[str, int], metrics: tuple[str, int] | None = None) -> None:
        """Attack the API at its address, and now and then the metrics if they have one."""
        self._api = api
        self._metrics = metrics or api
        self.statuses: dict[int, int] = {}

    def __call__(self, random: Random) -> None:
        sent = requests.requests(random)
        pieces = requests.pieces_of(random, sent)
        address = self._metrics if random.random() < 0.1 else self._api
        if random.random() < 0.05:
            _hang_up(address, pieces)
            return
        received = exchange(address, pieces)
        try:
            self._check(sent, received, is_api=address == self._api)
        except AssertionError as error:
            raise AssertionError(f"{error} to {sent[:1500]!r}: {received[:500]!r}") from error

    def _check(self, sent: bytes, received: bytes, *, is_api: bool) -> None:
        assert received or not sent.strip(b"\r\n"), "no answer"
        assert not received or _STATUS.match(received), "an answer that is not HTTP"
        for status in map(int, _STATUS.findall(received)):
            self.statuses[status] = self.statuses.get(status, 0) + 1
            assert status < 500 or status in _PROTOCOL or (status == 503 and b"/readyz" in sent), f"status {status}"
        if is_api and received and not sent.startswith(b"HEAD ") and not received.startswith(b"HTTP/1.1 100 "):
            _check_first(sent, received)


def _hang_up(address: tuple[str, int], pieces: Sequence[bytes]) -> None:
    """Send, and reset the connection without reading anything."""
    with socket.create_connection(address, timeout=_DEADLINE) as client, suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.settimeout(1)
        for piece in pieces:
            client.sendall(piece)


def _check_first(sent: bytes, received: bytes) -> None:
    """Check the first answer: its body is as long as announced, and an error of the API is JSON."""
    with HTTPResponse(_Received(received)) as answer:
        try:
            answer.begin()
            body = answer.read()
        except HTTPException as error:
            raise AssertionError(f"{type(error).__name__} in the answer") from error
        if answer.status >= 400 and not any(path in sent for path in _OTHER_FORMS):
            assert answer.headers["Content-Type"] == "application/json", "an error that is not JSON"
            error_body = json.loads(body)
            assert {"error"} <= error_body.keys() <= {"error", "field"}, "an error of another form"


class _Received:
    """Lets `HTTPResponse` read what was received."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> Any:
        return BytesIO(self._data)


def exchange(address: tuple[str, int], pieces: Sequence[bytes], deadline: float = _DEADLINE) -> bytes:
    """Send all pieces, close this side, and return what was received until the service closed the other.

    Receives while it sends. Raise `AssertionError` if the service does not close the connection in time.
    """
    until = time.monotonic() + deadline
    received = bytearray()
    unsent = [memoryview(piece) for piece in pieces if piece]
    with socket.create_connection(address, timeout=deadline) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        is_sending = True
        while True:
            left = until - time.monotonic()
            assert left > 0, f"no end after {deadline:g} s; {len(received)} bytes came: {bytes(received[:300])!r}"
            if is_sending and not unsent:
                is_sending = False
                with suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
            readable, writable, _ = select.select([client], [client] if is_sending else [], [], left)
            if writable:
                try:
                    count = client.send(unsent[0])
                except OSError:  # it has refused the rest
                    unsent.clear()
                    is_sending = False
                else:
                    unsent[0] = unsent[0][count:]
                    if not unsent[0]:
                        del unsent[0]
            if readable:
                try:
                    data = client.recv(256 * 1024)
                except OSError:
                    return bytes(received)
                if not data:
                    return bytes(received)
                received += data
