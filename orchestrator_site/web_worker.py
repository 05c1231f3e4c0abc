"""gunicorn's threaded worker, which nobody can hold by saying nothing, and whose own errors look like the API's."""

import json
import logging
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from orchestrator_site.deadlines import Watchdog

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 45.0  # for a client to send its request; longer than any answer of ours waits
_watchdog = Watchdog()

_STATUSES: Final = {
    LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class WebWorker(ThreadWorker):  # type: ignore[misc]
    """A thread is a client's while it speaks: who says nothing waits in the poller, who stops amid a request is cut off.

    What is no HTTP request is answered as JSON, and nothing of it is repeated: gunicorn would answer HTML.
    """

    def handle(self, conn: Any) -> Any:
        if not conn.initialized and not conn.wait_for_data(0):
            return _DEFER
        with _watchdog.limit(REQUEST_SECONDS, lambda: _hear_no_more(conn.sock)):
            return super().handle(conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        logger.warning("a request cannot be read", extra={"reason": type(exc).__name__})
        with suppress(OSError):
            client.sendall(_answer(_STATUSES.get(type(exc), HTTPStatus.BAD_REQUEST)))


def _hear_no_more(connection: socket.socket) -> None:
    """Whoever reads finds the end; an answer that is under way still goes out."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _answer(status: HTTPStatus) -> bytes:
    body = json.dumps({"error": f"the request cannot be read: {status.phrase.lower()}"}).encode()
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\n"
        f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
