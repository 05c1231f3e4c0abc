"""All connections of a web server: their number, their memory, and until when each may wait for its client."""

import math
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.web.client_connection import ClientConnection, Phase, Waiting
from orchestrator_site.web.refusals import Refusal
from orchestrator_site.web.wsgi_answer import ClientGone, WsgiAnswer

FULL: Final = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the service has too many requests; try again")
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The share of a web process that clients may use."""

    connections: int = 1000  # an idle one uses some 5 KB
    memory_bytes: int = 64 * 1024**2  # all requests and answers that wait for a client or for a thread
    long_answers: int = 4  # how many threads may produce answers past their first turn
    pausing: int = 500  # half of the connections: answers that follow something, and wait without a thread
    slow_bytes: int = 8 * 1024  # for each such number of bytes it has read, a client gets a second more for its answer


class ConnectionTable:
    """The open connections of a server. Used by the event loop's thread only."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        limits: Limits,
        intervals: WebIntervals,
        abandon: Callable[[WsgiAnswer], object],
    ) -> None:
        """Make an empty table. `abandon` is called with the unfinished answer of a connection that is closed."""
        self._selector = selector
        self._limits = limits
        self._intervals = intervals
        self._abandon = abandon
        self._all: set[ClientConnection] = set()
        self._waiting = Waiting()
        self._memory = 0
        self._stopping = False
        self.now = time.monotonic()  # the time of this round of the loop
        self.refused: Counter[str] = Counter()  # number of refused or closed connections by reason, since the last report

    def __len__(self) -> int:
        return len(self._all)

    @property
    def can_add(self) -> bool:
        """Return whether another connection can be added, if necessary in place of one that waits for its client."""
        return len(self._all) < self._limits.connections or bool(self._waiting)

    @property
    def needs_memory(self) -> bool:
        """Return whether all connections together use more memory than allowed."""
        return self._memory > self._limits.memory_bytes

    def add(self, connection: ClientConnection) -> None:
        """Add a new connection. If there are too many, it replaces another."""
        if len(self._all) >= self._limits.connections:
            self.evict()
        self._all.add(connection)
        self.wait(connection, Phase.IDLE)

    def evict(self) -> None:
        """Close the least important connection that waits for its client, if there is any.

        It is closed at once, so the client may lose the answer that says why.
        """
        victim = self._waiting.first(*Phase)
        if victim is None:
            return
        if victim.phase in (Phase.HEAD, Phase.BODY, Phase.SENDING, Phase.PAUSED):
            self.refused["the connection was needed for others"] += 1
        if victim.phase in (Phase.HEAD, Phase.BODY):
            victim.refuse(FULL)
            with suppress(ClientGone):
                victim.output.flush(victim.sock)
        self.drop(victim, reset=victim.phase is Phase.SENDING)

    def wait(self, connection: ClientConnection, phase: Phase, *, anew: bool = False) -> None:
        """Wait for the client of `connection`. Its time counts from when it entered this phase, or from now if `anew`."""
        if anew or connection.phase is not phase:
            self._waiting.remove(connection)
            self._waiting.add(connection, phase, self.now + self._seconds_for(phase))
            connection.waits_since = self.now
        events = selectors.EVENT_WRITE if phase is Phase.SENDING else selectors.EVENT_READ
        if not connection.registered:
            self._selector.register(connection.sock, events, connection)
        elif connection.registered != events:
            self._selector.modify(connection.sock, events, connection)
        connection.registered = events

    def leave(self, connection: ClientConnection) -> None:
        """Stop waiting for the client of `connection`.

        It stays registered for reading: most clients send nothing before they have their answer, so this saves two system
        calls for each request.
        """
        self._waiting.remove(connection)
        if connection.registered == selectors.EVENT_WRITE:
            self.ignore(connection)

    def ignore(self, connection: ClientConnection) -> None:
        """Remove `connection` from the selector until it waits again."""
        if connection.registered:
            self._selector.unregister(connection.sock)
            connection.registered = 0

    def count(self, connection: ClientConnection) -> None:
        """Update the sum of memory with what `connection` uses now."""
        self._memory += connection.held - connection.counted
        connection.counted = connection.held

    def to_free_memory(self) -> ClientConnection | None:
        """Return a waiting connection to give up, or None if memory is within the limit or nothing waits for its client."""
        return self._waiting.first(Phase.BODY, Phase.HEAD, Phase.SENDING) if self.needs_memory else None

    def is_too_slow(self, connection: ClientConnection) -> bool:
        """Add the time since `connection` began to wait; return whether its client has read too little of its answer for it."""
        connection.sending_seconds += self.now - connection.waits_since
        return connection.sending_seconds > self._intervals.slow + connection.output.sent / self._limits.slow_bytes

    def drop(self, connection: ClientConnection, *, reset: bool = False) -> None:
        """Close `connection` at once, if it is open. `reset` shows the client that its answer is not complete."""
        if connection not in self._all:
            return
        self.leave(connection)
        self.ignore(connection)
        if connection.answer is not None:
            self._abandon(connection.answer)
        if reset:
            with suppress(OSError):
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.sock.close()
        self._all.discard(connection)
        self._memory -= connection.counted

    def paused(self) -> list[ClientConnection]:
        """Return the connections whose answer has paused."""
        return self._waiting.all_in(Phase.PAUSED)

    def overdue(self) -> Iterator[ClientConnection]:
        """Yield connections that have waited too long. The caller must move or drop each before it asks for the next."""
        return self._waiting.overdue(self.now)

    def stop(self) -> None:
        """Give clients only a moment more to send a new request."""
        self._stopping = True
        for phase in (Phase.IDLE, Phase.LINGERING):
            self._waiting.bring_forward(phase, self.now + self._intervals.stop)

    def close(self) -> None:
        for connection in self._all:
            connection.sock.close()

    def _seconds_for(self, phase: Phase) -> float:
        match phase:
            case Phase.IDLE | Phase.LINGERING if self._stopping:
                return self._intervals.stop
            case Phase.LINGERING:
                return self._intervals.linger
            case Phase.IDLE:
                return self._intervals.idle
            case Phase.HEAD:
                return self._intervals.head
            case Phase.BODY:
                return self._intervals.body
            case Phase.SENDING:
                return self._intervals.stall
            case Phase.PAUSED:
                return math.inf
