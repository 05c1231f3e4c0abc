"""The connection of a client, and the connections that wait for their clients."""

import socket
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, Final

from orchestrator_site.web.refusals import Refusal
from orchestrator_site.web.request_reader import RequestReader
from orchestrator_site.web.wsgi_answer import Output, WsgiAnswer

_UNFINISHED_BYTES: Final = 256 * 1024  # what the application keeps for an unfinished answer, for example part of a log


class Phase(Enum):
    """The action of a client that the server waits for. Under pressure, connections in earlier phases are closed first."""

    LINGERING = auto()  # to close its side after the last answer
    IDLE = auto()  # to send a request
    HEAD = auto()  # to send the rest of a request's head
    BODY = auto()  # to send the rest of a request's body
    SENDING = auto()  # to read an answer
    PAUSED = auto()  # nothing: its answer goes on when something has happened, unless it closes the connection before


class ClientConnection:
    """A connection of a client. The event loop uses it while it has a phase; otherwise a thread does, or it is in their queue."""

    __slots__ = (
        "answer",
        "client",
        "closing",
        "counted",
        "is_long",
        "output",
        "phase",
        "reader",
        "registered",
        "request_size",
        "sending_seconds",
        "server",
        "sock",
        "waits_since",
    )

    def __init__(self, sock: socket.socket, client: Any, server: Any, cfg: Any) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.reader = RequestReader(cfg, client)
        self.output = Output()
        self.answer: WsgiAnswer | None = None
        self.request_size = 0  # bytes of the body of the request being answered
        self.closing = False  # once `output` is sent
        self.is_long = False  # the answer was not complete after its first turn
        self.phase: Phase | None = None
        self.registered = 0  # events registered with the selector
        self.counted = 0  # bytes of it in the server's sum of memory
        self.waits_since = 0.0
        self.sending_seconds = 0.0  # the time that this answer has waited for the client

    def begin(self, answer: WsgiAnswer, *, request_size: int) -> None:
        """Start an answer."""
        self.answer, self.request_size = answer, request_size
        self.is_long = False
        self.sending_seconds = 0.0
        self.output.sent = 0

    def refuse(self, refusal: Refusal) -> None:
        """Answer the request that is being read with an error."""
        answer = refusal.answer(self.reader.request, with_body=not self.reader.answers_without_body)
        self.output.sendall(answer)

    def end(self) -> None:
        """Forget the answer; the rest of it is in `output`."""
        self.answer, self.request_size = None, 0

    @property
    def held(self) -> int:
        """Return about how many bytes of requests and answers are in memory."""
        unfinished = _UNFINISHED_BYTES if self.answer is not None and self.phase is Phase.SENDING else 0
        return self.reader.held + self.request_size + self.output.size + unfinished


class Waiting:
    """Connections that wait for their client, by phase, those that have waited longest first."""

    def __init__(self) -> None:
        self._phases: dict[Phase, dict[ClientConnection, float]] = {phase: {} for phase in Phase}

    def __bool__(self) -> bool:
        return any(self._phases.values())

    def add(self, connection: ClientConnection, phase: Phase, deadline: float) -> None:
        connection.phase = phase
        self._phases[phase][connection] = deadline

    def remove(self, connection: ClientConnection) -> None:
        if connection.phase is not None:
            del self._phases[connection.phase][connection]
            connection.phase = None

    def first(self, *phases: Phase) -> ClientConnection | None:
        """Return the connection that has waited longest in the first of these phases that has any."""
        return next((next(iter(self._phases[phase])) for phase in phases if self._phases[phase]), None)

    def all_in(self, phase: Phase) -> list[ClientConnection]:
        return list(self._phases[phase])

    def overdue(self, now: float) -> Iterator[ClientConnection]:
        """Yield connections whose deadline has passed. The caller must remove each before it asks for the next."""
        for connections in self._phases.values():
            while connections:
                connection, deadline = next(iter(connections.items()))
                if deadline > now:
                    break
                yield connection

    def bring_forward(self, phase: Phase, deadline: float) -> None:
        """Move later deadlines of this phase to `deadline`."""
        connections = self._phases[phase]
        for connection in connections:
            connections[connection] = min(connections[connection], deadline)
