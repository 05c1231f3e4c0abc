"""gunicorn's threaded worker, with errors in the API's own form where no request ever reached Django."""

import json
import logging
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
from gunicorn.workers.gthread import ThreadWorker

logger = logging.getLogger(__name__)

_STATUSES: Final = {
    LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class WebWorker(ThreadWorker):  # type: ignore[misc]
    """Answers what is no HTTP request as JSON, and repeats nothing of it: gunicorn would answer HTML."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        logger.warning("a request cannot be read", extra={"reason": type(exc).__name__})
        with suppress(OSError):
            client.sendall(_answer(_STATUSES.get(type(exc), HTTPStatus.BAD_REQUEST)))


def _answer(status: HTTPStatus) -> bytes:
    body = json.dumps({"error": f"the request cannot be read: {status.phrase.lower()}"}).encode()
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\n"
        f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
