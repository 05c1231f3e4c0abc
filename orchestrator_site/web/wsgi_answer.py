"""Produces the answer to a request in turns, so that no thread waits for a client that does not read."""

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

from gunicorn.http import wsgi

from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.pauses import Pause, Pauses
from orchestrator_site.base.log_context import add_fields, log_context
from orchestrator_site.web.refusals import Refusal, request_id_of

logger = logging.getLogger(__name__)

TURN_BYTES: Final = 512 * 1024  # produced at a time, so that long answers take turns
LOG_FIELDS_KEY: Final = "orchestrator.log_fields"  # where the application leaves what the lines of the request name
UNSENT_BYTES: Final = 64 * 1024  # with more than this waiting for the client, no more is produced
_BUFFERS_A_SEND: Final = 64  # of sendmsg; the system's limit is 1024


class ClientGone(Exception):
    """The client has closed the connection."""


class Output:
    """The bytes that are still to be sent to a client. gunicorn's `Response` uses it as the socket."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self.size = 0
        self.sent = 0

    def sendall(self, data: bytes) -> None:
        """Keep `data` until `flush` sends it."""
        if data:
            self._pieces.append(memoryview(data))
            self.size += len(data)

    def clear(self) -> None:
        self._pieces.clear()
        self.size = 0

    def flush(self, sock: socket.socket) -> None:
        """Send as much as possible without waiting. Raise `ClientGone`."""
        while self.size:
            try:
                sent = sock.sendmsg(list(islice(self._pieces, _BUFFERS_A_SEND)))
            except BlockingIOError:
                return
            except OSError as error:
                raise ClientGone from error
            self.size -= sent
            self.sent += sent
            self._forget(sent)

    def _forget(self, sent: int) -> None:
        while sent:
            first = self._pieces.popleft()
            if len(first) > sent:
                self._pieces.appendleft(first[sent:])
            sent -= min(sent, len(first))


class Progress(Enum):
    """The state of an answer after a turn."""

    COMPLETE = auto()
    UNFINISHED = auto()
    PAUSED = auto()  # the application waits for something, and takes its next turn after that
    BROKEN = auto()  # the connection must be closed


class WsgiAnswer:
    """One answer of the application. `take_turn` runs in one thread at a time, not always in the same."""

    def __init__(
        self,
        request: Any,
        cfg: Any,
        application: Any,
        client: Any,
        server: Any,
        pauses: Pauses,
        is_stopping: Callable[[], bool],
    ) -> None:
        """Prepare an answer. `client` and `server` are the addresses of both ends."""
        self._request = request
        self._cfg = cfg
        self._application = application
        self._client = client
        self._server = server
        self._pauses = pauses
        self._is_stopping = is_stopping
        self._response: Any = None
        self._result: Any = None  # what the application returned: its `close` must be called
        self._parts: Iterator[bytes] | None = None
        self._log_fields: Mapping[str, str] = {}
        self.last = False  # the connection closes after it
        self.pause: Pause | None = None  # the latest that the application has taken

    def take_turn(self, sock: socket.socket, output: Output) -> Progress:
        """Produce and send a part of the answer."""
        with log_context(**self._log_fields):
            return self._take_turn(sock, output)

    def close(self) -> None:
        """Let the application clean up. Do nothing when called again."""
        with log_context(**self._log_fields):
            self._close()

    def _take_turn(self, sock: socket.socket, output: Output) -> Progress:
        try:
            if self._parts is None:
                self._begin(output)
            progress = self._produce(sock, output)
            if progress is not Progress.COMPLETE:
                return progress
            self._response.close()
            output.flush(sock)
            self.last = self._response.should_close()
            self.close()
        except ClientGone:
            self.close()
            return Progress.BROKEN
        except Exception as error:
            self.close()
            return self._fail(error, output)
        return Progress.COMPLETE

    def _close(self) -> None:
        result, self._result = self._result, None
        try:
            if hasattr(result, "close"):
                result.close()
        except Exception:
            logger.exception("closing an answer failed")
        finally:
            self._pauses.release()

    def cut_short(self) -> None:
        """End the answer at its pause; `close` is still to be called, and the connection to be closed."""
        self._response.close()

    def _begin(self, output: Output) -> None:
        self._response, environ = wsgi.create(self._request, output, self._client, self._server, self._cfg)
        environ["wsgi.multithread"] = True
        self._pauses.add_to(environ)
        self._result = self._application(environ, self._response.start_response)
        self._log_fields = environ.get(LOG_FIELDS_KEY, {})
        add_fields(**self._log_fields)
        if self._is_stopping():  # also close the connections of answers that began before the stop
            self._response.force_close()
        self._parts = iter(self._result)

    def _produce(self, sock: socket.socket, output: Output) -> Progress:
        """Write parts of the answer, until its end, its next pause, the end of the turn, or the client does not read."""
        assert self._parts is not None  # noqa: S101 - for the type checker
        produced = 0
        for part in self._parts:
            self._response.write(part)
            output.flush(sock)
            if self._request.method == "HEAD":  # the headers are out, and nothing else is sent
                return Progress.COMPLETE
            self.pause = self._pauses.taken()
            if self.pause is not None:
                return Progress.PAUSED
            produced += len(part)
            if output.size > UNSENT_BYTES or produced > TURN_BYTES:
                return Progress.UNFINISHED
        return Progress.COMPLETE

    def _fail(self, error: Exception, output: Output) -> Progress:
        if self._response is not None and self._response.headers_sent:
            logger.error("an answer failed after its headers were sent", exc_info=error)
            return Progress.BROKEN
        request_id = request_id_of(self._request)
        logger.error("a request failed", exc_info=error, extra={"request_id": request_id})
        refusal = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, error_texts.BY_STATUS[500])
        output.clear()
        output.sendall(refusal.encode(request_id, with_body=self._request.method != "HEAD"))
        self.last = True
        return Progress.COMPLETE
