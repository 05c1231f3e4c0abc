"""The web server's event loop: one thread that waits for all clients at once.

A thread of the pool only ever has a complete request, and never waits for a client: what the client does not take is sent
from here, and the rest of a long answer is produced when that has been taken.
"""

import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from orchestrator_site.web.client_connection import ClientConnection, Phase
from orchestrator_site.web.connection_table import FULL, ConnectionTable, Limits
from orchestrator_site.web.refusals import Refusal
from orchestrator_site.web.request_reader import Stage
from orchestrator_site.web.wsgi_answer import ClientGone, Progress, WsgiAnswer

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 64 * 1024  # from one connection, before it is the turn of the next
_SEND_BUFFER_BYTES: Final = 256 * 1024  # of the kernel's, for each connection: without a limit it grows to megabytes
_ACCEPTS: Final = 32  # new connections, before it is the turn of those that exist
_TICK_SECONDS: Final = 1.0
_DOES_NOT_READ: Final = "the client did not read its answer"
_STAGES: Final = {Stage.NOTHING: Phase.IDLE, Stage.HEAD: Phase.HEAD, Stage.BODY: Phase.BODY}


class Server:
    """Serves a WSGI application. All but `wake` must be called in one thread."""

    def __init__(self, listeners: list[Any], cfg: Any, application: Any, limits: Limits) -> None:
        self._listeners = listeners
        self._cfg = cfg
        self._application = application
        self._limits = limits
        self._selector = selectors.DefaultSelector()
        self._threads = ThreadPoolExecutor(cfg.threads, thread_name_prefix="web")
        self._connections = ConnectionTable(self._selector, limits, lambda answer: self._threads.submit(answer.close))
        self._reports: deque[tuple[ClientConnection, Progress]] = deque()  # from threads that have had a turn
        self._long_queue: deque[ClientConnection] = deque()  # whose next turn is to come
        self._long_running = 0
        self._accepting = False
        self._accept_at = 0.0
        self._stopping = False
        self._next_tick = time.monotonic() + _TICK_SECONDS
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)

    # -- from outside --------------------------------------------------------------------------
    def serve(self, seconds: float) -> None:
        """Wait for events, at most so many seconds, and handle them."""
        self._set_accepting(self._connections.has_room and not self._stopping and time.monotonic() >= self._accept_at)
        events = self._selector.select(seconds)
        self._connections.now = time.monotonic()
        # Reports first: a client that has its answer may have sent the next request, which is then among these events.
        if any(key.fileobj is self._wake_reader for key, _ in events):
            self._take_reports()
            self._free_memory()
        for key, _ in events:
            if isinstance(key.data, ClientConnection):
                self._guard(key.data, self._handle)
            elif key.fileobj is not self._wake_reader:
                self._accept(key.fileobj)
            self._free_memory()
        if self._connections.now >= self._next_tick:
            self._next_tick = self._connections.now + _TICK_SECONDS
            self._tick()

    def wake(self) -> None:
        """Let `serve` return soon. For threads and signal handlers."""
        with suppress(OSError):  # it is full of such calls, or closed
            self._wake_writer.send(b".")

    def stop(self) -> None:
        """Take no new connections, and close each one after its next answer."""
        self._stopping = True
        self._set_accepting(False)
        self._connections.stop()

    @property
    def is_done(self) -> bool:
        """Whether no connection is left."""
        return not self._connections

    def abandon_requests(self) -> None:
        """Begin no more of the requests that wait for a thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self.abandon_requests()
        self._connections.close()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    # -- connections ---------------------------------------------------------------------------
    def _set_accepting(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        for listener in self._listeners:
            if accepting:
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ)
            else:
                self._selector.unregister(listener)

    def _accept(self, listener: Any) -> None:
        for _ in range(_ACCEPTS):
            if not self._connections.has_room:
                return
            try:
                sock, client = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptor is free, say
                logger.warning("a connection cannot be accepted: %s", error)
                self._connections.make_room()
                self._accept_at = self._connections.now + _TICK_SECONDS
                return
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self._connections.add(ClientConnection(sock, client, listener.getsockname(), self._cfg))

    def _guard(self, connection: ClientConnection, step: Callable[..., None], *arguments: Any) -> None:
        """Do what is next on a connection. Whatever goes wrong there must not end the loop that serves all others."""
        try:
            step(connection, *arguments)
        except Exception:
            logger.exception("a connection failed")
            self._connections.drop(connection, reset=True)

    def _handle(self, connection: ClientConnection) -> None:
        match connection.phase:
            case Phase.SENDING:
                self._send(connection)
            case Phase.LINGERING:
                if self._receive(connection) == b"":
                    self._connections.drop(connection)
            case Phase.IDLE | Phase.HEAD | Phase.BODY:
                self._read(connection)
            case None:  # it is being answered, or an event before this one has closed it
                self._connections.ignore(connection)

    def _free_memory(self) -> None:
        while (connection := self._connections.to_free_memory()) is not None:
            if connection.phase is Phase.SENDING:
                self._give_up(connection, "the memory was needed for others")
            else:
                self._refuse(connection, FULL)

    def _tick(self) -> None:
        for connection in self._connections.overdue():
            self._guard(connection, self._expire)
        if self._connections.refused:
            logger.warning("requests were refused", extra={"refused": dict(self._connections.refused)})
            self._connections.refused.clear()

    def _expire(self, connection: ClientConnection) -> None:
        match connection.phase:
            case Phase.HEAD:
                self._refuse(connection, _too_slow("the request headers", self._limits.head_seconds))
            case Phase.BODY:
                self._refuse(connection, _too_slow("the body", self._limits.body_seconds))
            case Phase.SENDING:
                self._give_up(connection, _DOES_NOT_READ)
            case _:
                self._connections.drop(connection)

    # -- requests ------------------------------------------------------------------------------
    def _receive(self, connection: ClientConnection) -> bytes | None:
        """What has arrived; b"" if the client sends no more, None if nothing has arrived or the connection is lost."""
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
        """Hand over the next request, or wait for the rest of it."""
        try:
            request = connection.reader.next_request()
        except Refusal as refusal:
            self._refuse(connection, refusal)
            return
        if request is not None:
            self._hand_over(connection, request)
            return
        if connection.reader.take_continue():
            connection.output.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            with suppress(ClientGone):  # the next read finds out
                connection.output.flush(connection.sock)
        self._connections.wait(connection, _STAGES[connection.reader.stage])
        self._connections.count(connection)

    def _refuse(self, connection: ClientConnection, refusal: Refusal) -> None:
        self._connections.refused[refusal.sentence] += 1
        connection.closing = True
        connection.reader.forget()
        connection.output.sendall(refusal.encode(with_body=not connection.reader.answers_without_body))
        self._send(connection)

    def _hand_over(self, connection: ClientConnection, request: Any) -> None:
        self._connections.leave(connection)
        connection.begin(
            WsgiAnswer(request, self._cfg, self._application, connection.client, connection.server, lambda: self._stopping),
            request_size=request.body.getbuffer().nbytes,
        )
        self._connections.count(connection)
        self._free_memory()
        if self._connections.needs_memory:
            connection.end()
            self._refuse(connection, FULL)
        else:
            self._threads.submit(self._take_turn, connection)

    # -- answers -------------------------------------------------------------------------------
    def _take_turn(self, connection: ClientConnection) -> None:
        """Runs in a thread of the pool."""
        assert connection.answer is not None
        progress = Progress.BROKEN
        try:
            progress = connection.answer.take_turn(connection.sock, connection.output)
        finally:
            self._reports.append((connection, progress))
            self.wake()

    def _take_reports(self) -> None:
        with suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        while self._reports:
            connection, progress = self._reports.popleft()
            self._guard(connection, self._take_report, progress)

    def _take_report(self, connection: ClientConnection, progress: Progress) -> None:
        assert connection.answer is not None
        if connection.is_long:
            self._long_running -= 1
            self._start_long_answers()
        if progress is not Progress.UNFINISHED:
            connection.closing = connection.answer.last
            connection.end()
        if progress is Progress.BROKEN:
            self._connections.drop(connection, reset=True)
        else:
            self._go_on(connection)

    def _start_long_answers(self) -> None:
        while self._long_queue and self._long_running < self._limits.long_answers:
            self._long_running += 1
            self._threads.submit(self._take_turn, self._long_queue.popleft())

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
            self._go_on(connection, took_some=connection.output.sent > before)

    def _go_on(self, connection: ClientConnection, *, took_some: bool = False) -> None:
        """Do what comes next, after some or all of what was to be sent has been."""
        if connection.output.size:
            self._connections.wait(connection, Phase.SENDING, anew=took_some)
            self._connections.count(connection)
        elif connection.answer is not None:
            self._connections.leave(connection)
            connection.is_long = True
            self._long_queue.append(connection)
            self._start_long_answers()
        elif connection.closing:
            self._linger(connection)
        else:
            self._proceed(connection)

    def _linger(self, connection: ClientConnection) -> None:
        """Close our side and wait for the client's: closing at once would take the answer from a client that still sends."""
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
