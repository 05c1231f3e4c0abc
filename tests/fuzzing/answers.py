"""Attacks what reads the answers of callback, download and upload hosts: whatever they send, it ends in time."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

from callbacks.delivery import delivery_attempt
from jobs.errors import TransferFailed
from jobs.interrupt import Interrupt
from jobs.transfers.download import Download
from jobs.transfers.http_attempts import TransferLimits
from orchestrator_site.base.egress import http_client
from orchestrator_site.base.egress.retry_after import parse_retry_after
from orchestrator_site.base.intervals import DeliveryIntervals, TransferIntervals
from tests.fuzzing.inputs import answers
from tests.site.base.egress.sending import Zeros

_DELIVERY: Final = DeliveryIntervals(connect=0.3, answer=0.3)
_TRANSFER: Final = TransferIntervals(connect=0.3, read=0.3, retry=0.001)
_UPLOAD_TIMES: Final = {"connect_timeout": 0.3, "read_timeout": 0.3, "total_timeout": 0.6}
_TRANSFER_SECONDS: Final = 0.6
_MAX_SECONDS: Final = 20.0  # what takes longer does not end by itself
_MAX_FILE: Final = 1024**2
_MAX_SENT: Final = 64 * 1024**2  # bytes of an endless answer; a client reads as many only if nothing limits it


class HostileServer:
    """A server on loopback that does with every connection what `answer` says."""

    def __init__(self) -> None:
        self.answer = answers.Answer(b"")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._closing = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.settle()

    def settle(self) -> None:
        """Wait until all connections are closed."""
        for thread in list(self._threads):
            thread.join(_MAX_SECONDS)

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._closing.is_set():
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection, self.answer), daemon=True)
                self._threads = {one for one in self._threads if one.is_alive()} | {thread}
                thread.start()

    def _serve(self, connection: socket.socket, answer: answers.Answer) -> None:
        with connection, suppress(OSError):
            connection.settimeout(_MAX_SECONDS)
            connection.recv(64 * 1024)
            connection.sendall(answer.data)
            block = answer.endless * (1 if answer.pause else 64 * 1024 // max(1, len(answer.endless)) + 1)
            for _ in range(_MAX_SENT // len(block) if block else 0):
                time.sleep(answer.pause)
                connection.sendall(block)
            if answer.hangs:
                while connection.recv(64 * 1024):
                    pass
            if answer.resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class AnswerAttack:
    """Sends a request of each kind to a hostile server, and checks what becomes of it."""

    def __init__(self, server: HostileServer, spool: Path) -> None:
        self._server = server
        self._spool = spool
        self.outcomes: Counter[str] = Counter()

    def __call__(self, random: Random) -> None:
        self._server.answer = answers.answer(random, self._server.port)
        scheme = "https" if random.random() < 0.05 else "http"
        url = f"{scheme}://127.0.0.1:{self._server.port}/"
        began = time.monotonic()
        match random.randrange(6):
            case 0 | 1:
                self._deliver(url)
            case 2 | 3:
                self._download(url)
            case 4:
                self._upload(url)
            case 5:
                _parse_date(random)
        assert time.monotonic() - began < _MAX_SECONDS, "it took too long"

    def _deliver(self, url: str) -> None:
        outcome = delivery_attempt.send(url, {}, b"{}", _DELIVERY)
        self.outcomes[f"status {outcome.status}"] += 1
        assert outcome.status is None or 100 <= outcome.status <= 999
        assert outcome.status is not None or outcome.error
        assert len(outcome.error) <= 512
        assert len(outcome.answer.encode()) <= 2048
        assert outcome.error.isprintable(), outcome.error
        assert "\0" not in outcome.answer
        assert 0 <= outcome.retry_after <= _DELIVERY.retry_after_max

    def _download(self, url: str) -> None:
        limits = TransferLimits(
            size=_MAX_FILE,
            deadline=time.monotonic() + _TRANSFER_SECONDS,
            spool_directory=self._spool,
            attempts=2,
            intervals=_TRANSFER,
        )
        end = 0
        try:
            for piece in Download(url, {"X-Token": "t"}, None, limits, Interrupt(), lambda *_: None).pieces():
                assert piece.offset in (0, end), "a piece in another place"
                end = piece.end
                assert end <= _MAX_FILE, "a file over the limit"
        except TransferFailed as error:
            failure = str(error)
            self.outcomes[type(error).__name__] += 1
        else:
            failure = ""
            self.outcomes["a file"] += 1
        assert len(failure.encode()) <= 1024
        assert failure.isprintable(), failure

    def _upload(self, url: str) -> None:
        try:
            with http_client.open("PUT", url, body=Zeros(300_000), **_UPLOAD_TIMES) as answer:
                self.outcomes[f"status {answer.status}"] += 1
                assert sum(map(len, islice(http_client.chunks(answer), 100))) <= 100 * 65536
        except http_client.EgressFailed as error:
            self.outcomes[type(error).__name__] += 1


def _parse_date(random: Random) -> None:
    seconds = parse_retry_after(answers.date(random), datetime.now(UTC), answers.date(random))
    assert 0 <= seconds < float("inf")


@contextmanager
def hostile_server() -> Iterator[HostileServer]:
    server: Any = HostileServer()
    try:
        yield server
    finally:
        server.close()
