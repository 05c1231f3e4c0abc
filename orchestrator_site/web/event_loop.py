"""The web server's event loop: one thread that waits for all clients at once.

A thread of the pool gets complete requests only, and never waits for a client: the loop sends what the client does not read
at once, and the rest of a long answer is produced when that has been sent. An answer that waits for something to happen
pauses, and has no thread meanwhile (orchestrator_site/base/http/pauses.py).
"""

import logging
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Any

from orchestrator_site.base.http.pauses import Pauses, Places
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.web.acceptor import Acceptor
from orchestrator_site.web.answer_threads import AnswerThreads
from orchestrator_site.web.client_connection import ClientConnection
from orchestrator_site.web.connection_steps import ConnectionSteps
from orchestrator_site.web.connection_table import ConnectionTable, Limits

logger = logging.getLogger(__name__)


class Server:
    """A server of a WSGI application. All methods but `wake` must be called in one thread."""

    def __init__(
        self, listeners: list[Any], cfg: Any, application: Any, limits: Limits, intervals: WebIntervals = WebIntervals()
    ) -> None:
        """Prepare to serve. `cfg` is gunicorn's configuration."""
        self._selector = selectors.DefaultSelector()
        self._threads = AnswerThreads(cfg.threads, limits.long_answers, self.wake)
        self._connections = ConnectionTable(self._selector, limits, intervals, self._threads.abandon)
        self._acceptor = Acceptor(listeners, self._selector, self._connections, cfg, intervals)
        self._places = Places(limits.pausing)
        self._ended_pauses: deque[ClientConnection] = deque()
        self._steps = ConnectionSteps(
            self._connections, self._threads, cfg, application, intervals, self._new_pauses, lambda: self._stopping
        )
        self._stopping = False
        self._tick = intervals.tick
        self._next_tick = time.monotonic() + self._tick
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)

    def serve(self, seconds: float) -> None:
        """Wait for events for at most `seconds` and handle them."""
        self._acceptor.update()
        events = self._selector.select(seconds)
        self._connections.now = time.monotonic()
        # Finished turns first: a client that has its answer may have sent the next request, which is then among these events.
        if any(key.fileobj is self._wake_reader for key, _ in events):
            self._handle_turns()
        for key, _ in events:
            if isinstance(key.data, ClientConnection):
                self._steps.handle_event(key.data)
            elif key.fileobj is not self._wake_reader:
                self._acceptor.accept(key.fileobj)
            self._steps.free_memory()
        if self._connections.now >= self._next_tick:
            self._next_tick = self._connections.now + self._tick
            self._handle_timeouts()

    def wake(self) -> None:
        """Let `serve` return soon. For threads and signal handlers."""
        with suppress(OSError):  # it is full of such calls, or closed
            self._wake_writer.send(b".")

    def stop(self) -> None:
        """Accept no new connections, and close each one after its next answer."""
        self._stopping = True
        self._acceptor.stop()
        self._connections.stop()
        self._steps.end_pauses()

    @property
    def is_done(self) -> bool:
        """Return whether all connections are closed."""
        return not self._connections

    def abandon_requests(self) -> None:
        """Drop the requests that wait for a thread."""
        self._threads.shutdown()

    def close(self) -> None:
        self.abandon_requests()
        self._connections.close()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _new_pauses(self, connection: ClientConnection) -> Pauses:
        def notify(_: object) -> None:
            self._ended_pauses.append(connection)
            self.wake()

        return Pauses(self._places, notify)

    def _handle_turns(self) -> None:
        with suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        for connection, progress in self._threads.finished_turns():
            self._steps.handle_turn(connection, progress)
        while self._ended_pauses:  # after the turns: a pause may end as soon as it is taken
            self._steps.handle_end_of_pause(self._ended_pauses.popleft())
        self._steps.free_memory()

    def _handle_timeouts(self) -> None:
        for connection in self._connections.overdue():
            self._steps.handle_timeout(connection)
        if self._connections.refused:
            logger.warning("requests were refused", extra={"refused": dict(self._connections.refused)})
            self._connections.refused.clear()
