"""Requests to the mover of one pod, as mover/main.c describes them. Each has a connection of its own."""

import hmac
import http.client
import ipaddress
import select
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import quote, unquote

from jobs.engine.kubernetes.files.tokens import Tokens
from jobs.engine.protocol import User
from jobs.errors import EngineRefused, EngineSilent, EngineUnavailable, JobError, PathNotFound
from jobs.interrupt import Interrupt
from orchestrator_site.base.intervals import EngineIntervals

PORT: Final = 17365

_CHUNK_BYTES: Final = 256 * 1024
_MAX_SENTENCE_BYTES: Final = 1024
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = frozenset({401, 431, 500, 507})  # these say nothing about the job's files
_TRANSPORT_ERRORS: Final = (OSError, http.client.HTTPException, ValueError)  # the last if the size of a chunk is not a number


@dataclass(frozen=True, slots=True)
class Found:
    """What the mover has met at a path, or on the way to it if that is a symbolic link."""

    path: str
    kind: str
    size: int
    target: str  # of a link


class MoverClient:
    """The mover of one pod. Thread-safe. All calls raise `EngineUnavailable`, and `Interrupted` if `interrupt` is set."""

    def __init__(
        self,
        address: str,
        tokens: Tokens,
        intervals: EngineIntervals,
        interrupt: Interrupt,
        max_silence: float | None = None,
        port: int = PORT,
    ) -> None:
        """Prepare requests to the pod with this IP address. `max_silence` is as in `Engine.bound`."""
        self._address = address
        self._port = port
        self._tokens = tokens
        self._intervals = intervals
        self._interrupt = interrupt
        self._max_silence = float("inf") if max_silence is None else max_silence

    def user(self) -> User:
        """Return the user that the mover runs as."""
        with self._exchange("GET", "/user") as answer:
            return User(int(answer.getheader("Uid", "")), int(answer.getheader("Gid", "")))

    def look(self, path: str) -> Found | None:
        """Return what is at a path in the workspace, or None."""
        try:
            with self._exchange("GET", f"/stat{_encoded(path)}") as answer:
                return Found(
                    path=_decoded(answer.getheader("Path", "")),
                    kind=answer.getheader("Kind", ""),
                    size=int(answer.getheader("Size", "0")),
                    target=_decoded(answer.getheader("Target", "")),
                )
        except PathNotFound:
            return None

    @contextmanager
    def get(self, path: str) -> Iterator[Iterator[bytes]]:
        """Open a tar stream of what is at a path. Raise `PathNotFound` and `EngineRefused`."""
        with self._exchange("GET", f"/tar{_encoded(path)}") as answer:
            yield self._chunks(answer)

    def put(self, directory: str, tar: Iterable[bytes]) -> None:
        """Unpack a tar stream into a directory; see `Engine.put`."""
        failures: list[Exception] = []

        def until_failure() -> Iterator[bytes]:
            # The mover answers before the error is raised: it unpacks nothing more after that.
            try:
                yield from tar
            except Exception as error:
                failures.append(error)

        try:
            with self._exchange("PUT", f"/tar{_encoded(directory)}", until_failure()):
                pass
        except (EngineRefused, PathNotFound):
            if not failures:
                raise
        if failures:
            raise failures[0]

    def signal(self, number: int, *, first_only: bool) -> int:
        """Send a signal to all processes of the job, or only to the one it was started with; return to how many."""
        with self._exchange("POST", f"/signal/{number}{'/first' if first_only else ''}") as answer:
            return int(answer.getheader("Count", "0"))

    def finish(self) -> None:
        """Let the mover of inputs exit. That of outputs, which listens on the same port after it, takes no notice."""
        with self._exchange("POST", "/finish"):
            pass

    @contextmanager
    def _exchange(self, method: str, target: str, body: Iterator[bytes] | None = None) -> Iterator[http.client.HTTPResponse]:
        """Send a request and yield a successful answer, its body unread. Raise what another one means."""
        with ExitStack() as cleanup:
            with self._translated_errors():
                connection = self._connect(cleanup)
                answer = self._request(connection, method, target, body)
                cleanup.callback(answer.close)
                self._check(answer)
            yield answer

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise what an error of the connection means. One that the interrupt has ended looks broken."""
        self._interrupt.check()
        try:
            yield
        except TimeoutError as error:
            self._interrupt.check()
            raise EngineSilent("the helper of the pod does not answer") from error
        except _TRANSPORT_ERRORS as error:
            self._interrupt.check()
            raise EngineUnavailable(f"the connection to the helper of the pod failed: {error}") from error

    def _request(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: Iterator[bytes] | None
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._tokens.asked}"}
        if body is None:
            connection.request(method, target, headers=headers)
            return connection.getresponse()
        # An answer may come before all was sent: then nothing more is.
        body = _until_answered(connection.sock, body)
        try:
            connection.request(method, target, body, headers | {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            return connection.getresponse()
        return connection.getresponse()

    def _connect(self, cleanup: ExitStack) -> http.client.HTTPConnection:
        """Connect, also to a mover that does not listen yet. Setting the interrupt ends whatever the connection waits for."""
        family = socket.AF_INET6 if ipaddress.ip_address(self._address).version == 6 else socket.AF_INET
        deadline = time.monotonic() + self._intervals.connect
        while True:
            made = cleanup.enter_context(closing(socket.socket(family, socket.SOCK_STREAM)))
            cleanup.enter_context(self._interrupt.waking(partial(made.shutdown, socket.SHUT_RDWR)))
            made.settimeout(min(self._intervals.connect, self._max_silence))
            try:
                made.connect((self._address, self._port))
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
            cleanup.close()
            self._interrupt.sleep(self._intervals.cluster_helper)
        made.settimeout(min(self._intervals.long_call, self._max_silence))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = http.client.HTTPConnection(self._address, self._port)
        connection.sock = made
        return connection

    def _check(self, answer: http.client.HTTPResponse) -> None:
        """Raise what an answer means that is not a success."""
        if answer.status == http.client.UNAUTHORIZED:
            raise EngineUnavailable("the helper of the pod does not know the token")
        if not hmac.compare_digest(answer.getheader("Mover-Token", "").encode(), self._tokens.answered.encode()):
            raise EngineUnavailable("something else answers in place of the helper of the pod")
        if answer.status != http.client.OK:
            sentence = answer.read(_MAX_SENTENCE_BYTES).decode(errors="replace")
            raise _error_of(answer.status)(sentence or f"the helper of the pod answered {answer.status}")

    def _chunks(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            with self._translated_errors():
                data = answer.read(_CHUNK_BYTES)
            if not data:
                return
            yield data


def _error_of(status: int) -> type[JobError]:
    if status == _NOT_FOUND:
        return PathNotFound
    return EngineUnavailable if status in _UNAVAILABLE else EngineRefused


def _until_answered(connection: socket.socket, body: Iterator[bytes]) -> Iterator[bytes]:
    answer = select.poll()
    answer.register(connection, select.POLLIN)
    for data in body:
        yield data
        if answer.poll(0):
            return


def _encoded(path: str) -> str:
    return quote(path.encode("utf-8", "surrogateescape"))


def _decoded(text: str) -> str:
    return unquote(text, "utf-8", "surrogateescape")
