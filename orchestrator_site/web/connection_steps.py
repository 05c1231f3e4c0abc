"""The steps of a client's connection: read a request, have it answered, send the answer, close.

Each step ends at once and leaves the connection waiting for its client or for a thread.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

from orchestrator_site.base import measurements
from orchestrator_site.base.http.pauses import Pauses
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.web.answer_threads import AnswerThreads
from orchestrator_site.web.client_connection import ClientConnection, Phase
from orchestrator_site.web.connection_table import FULL, ConnectionTable
from orchestrator_site.web.refusals import Refusal
from orchestrator_site.web.request_reader import Stage
from orchestrator_site.web.wsgi_answer import ClientGone, Progress, WsgiAnswer

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 64 * 1024  # from one connection before the next gets its turn
_DOES_NOT_READ: Final = "the client did not read its answer"
_PHASES: Final = {Stage.NOTHING: Phase.IDLE, Stage.HEAD: Phase.HEAD, Stage.BODY: Phase.BODY}


class ConnectionSteps:
    """The steps; one that fails closes its connection only. Used by the event loop's thread only."""

    def __init__(
        self,
        connections: ConnectionTable,
        threads: AnswerThreads,
        cfg: Any,
        application: Any,
        intervals: WebIntervals,
        new_pauses: Callable[[ClientConnection], Pauses],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._connections = connections
        self._threads = threads
        self._cfg = cfg
        self._application = application
        self._intervals = intervals
        self._new_pauses = new_pauses
        self._is_stopping = is_stopping

    def handle_event(self, connection: ClientConnection) -> None:
        """Do the next step of a connection whose socket is ready."""
        with self._closing_on_error(connection):
            match connection.phase:
                case Phase.SENDING:
                    self._send(connection)
                case Phase.PAUSED:
                    self._notice_end(connection)
                case Phase.LINGERING:
                    if self._receive(connection) == b"":
                        self._connections.drop(connection)
                case Phase.IDLE | Phase.HEAD | Phase.BODY:
                    self._read(connection)
                case None:  # it is being answered, or an event before this one has closed it
                    self._connections.ignore(connection)

    def handle_turn(self, connection: ClientConnection, progress: Progress) -> None:
        """Do the next step of a connection whose answer has had a turn in a thread."""
        with self._closing_on_error(connection):
            assert connection.answer is not None  # noqa: S101 - for the type checker
            if progress in (Progress.COMPLETE, Progress.BROKEN):
                connection.closing = connection.answer.last
                connection.end()
            if progress is Progress.BROKEN:
                self._connections.drop(connection, reset=True)
            else:
                self._go_on(connection)

    def handle_end_of_pause(self, connection: ClientConnection) -> None:
        """Let the answer of a connection go on. Do nothing if it does not wait, or for a later pause."""
        if connection.phase is Phase.PAUSED:
            with self._closing_on_error(connection):
                self._go_on(connection)

    def end_pauses(self) -> None:
        """End the answers that have paused, where they are."""
        for connection in self._connections.paused():
            with self._closing_on_error(connection):
                self._go_on(connection)

    def handle_timeout(self, connection: ClientConnection) -> None:
        """Answer or close a connection whose client was too slow."""
        with self._closing_on_error(connection):
            match connection.phase:
                case Phase.HEAD:
                    self._refuse(connection, _too_slow("the request headers", self._intervals.head))
                case Phase.BODY:
                    self._refuse(connection, _too_slow("the body", self._intervals.body))
                case Phase.SENDING:
                    self._give_up(connection, _DOES_NOT_READ)
                case _:
                    self._connections.drop(connection)

    def free_memory(self) -> None:
        """Give up connections that wait for their client until the others are within the memory limit."""
        while (connection := self._connections.to_free_memory()) is not None:
            if connection.phase is Phase.SENDING:
                self._give_up(connection, "the memory was needed for others")
            else:
                self._refuse(connection, FULL)

    @contextmanager
    def _closing_on_error(self, connection: ClientConnection) -> Iterator[None]:
        try:
            yield
        except Exception:
            logger.exception("a connection failed")
            self._connections.drop(connection, reset=True)

    # -- requests ------------------------------------------------------------------------------
    def _receive(self, connection: ClientConnection) -> bytes | None:
        """Return what has arrived; b"" if the client sends no more, None if nothing has arrived or the connection is lost."""
        try:
            return connection.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            self._connections.drop(connection)
            return None

    def _read(self, connection: ClientConnection) -> None:
        data = self._receive(connection)
        if data is None:
            return
        if data:
            connection.reader.feed(data)
            self._proceed(connection)
            return
        try:
            connection.reader.end()
        except Refusal as refusal:
            self._refuse(connection, refusal)
        else:
            self._connections.drop(connection)

    def _proceed(self, connection: ClientConnection) -> None:
        """Start to answer the next request, or wait for the rest of it."""
        try:
            request = connection.reader.next_request()
        except Refusal as refusal:
            self._refuse(connection, refusal)
            return
        if request is not None:
            self._answer(connection, request)
            return
        if connection.reader.take_continue():
            connection.output.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            with suppress(ClientGone):  # the next read finds out
                connection.output.flush(connection.sock)
        self._connections.wait(connection, _PHASES[connection.reader.stage])
        self._connections.count(connection)

    def _answer(self, connection: ClientConnection, request: Any) -> None:
        self._connections.leave(connection)
        connection.begin(
            WsgiAnswer(
                request,
                self._cfg,
                self._application,
                connection.client,
                connection.server,
                self._new_pauses(connection),
                self._is_stopping,
            ),
            request_size=request.body.getbuffer().nbytes,
        )
        self._connections.count(connection)
        self.free_memory()
        if self._connections.needs_memory:
            connection.end()
            self._refuse(connection, FULL)
        else:
            self._threads.start(connection)

    def _refuse(self, connection: ClientConnection, refusal: Refusal) -> None:
        """Answer with an error and close the connection after it."""
        self._connections.refused[refusal.sentence] += 1
        measurements.request_refused(refusal.status)
        connection.closing = True
        connection.refuse(refusal)
        connection.reader.forget()
        self._send(connection)

    # -- answers -------------------------------------------------------------------------------
    def _send(self, connection: ClientConnection) -> None:
        before = connection.output.sent
        try:
            connection.output.flush(connection.sock)
        except ClientGone:
            self._connections.drop(connection)
            return
        if connection.phase is Phase.SENDING and self._connections.is_too_slow(connection):
            self._give_up(connection, _DOES_NOT_READ)
        else:
            self._go_on(connection, sent_some=connection.output.sent > before)

    def _go_on(self, connection: ClientConnection, *, sent_some: bool = False) -> None:
        """Do what comes next, after some or all of the output has been sent."""
        if connection.output.size:
            self._connections.wait(connection, Phase.SENDING, anew=sent_some)
            self._connections.count(connection)
        elif connection.answer is not None:
            self._continue(connection, connection.answer)
        elif connection.closing:
            self._linger(connection)
        else:
            self._proceed(connection)

    def _continue(self, connection: ClientConnection, answer: WsgiAnswer) -> None:
        """Let the next turn of an answer begin, unless it has paused."""
        if answer.pause is None or answer.pause.ended:
            self._connections.leave(connection)
            self._threads.resume(connection)
        elif self._is_stopping():
            answer.cut_short()
            self._threads.abandon(answer)
            connection.end()
            connection.closing = True
            self._send(connection)
        else:
            self._connections.wait(connection, Phase.PAUSED)
            self._connections.count(connection)

    def _notice_end(self, connection: ClientConnection) -> None:
        """Close the connection if the client has closed its side. What it sends is left for after the answer."""
        try:
            closed = not connection.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            closed = True
        if closed:
            self._connections.drop(connection)
        else:
            self._connections.ignore(connection)

    def _linger(self, connection: ClientConnection) -> None:
        """Close our side and wait for the client's: closing both would lose the answer for a client that still sends."""
        connection.reader.forget()
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._connections.drop(connection)
            return
        self._connections.wait(connection, Phase.LINGERING)
        self._connections.count(connection)

    def _give_up(self, connection: ClientConnection, reason: str) -> None:
        """Close a connection before all of its answer has been sent."""
        self._connections.refused[reason] += 1
        self._connections.drop(connection, reset=True)


def _too_slow(what: str, seconds: float) -> Refusal:
    return Refusal(HTTPStatus.REQUEST_TIMEOUT, f"{what} did not arrive within {seconds:g} seconds")
