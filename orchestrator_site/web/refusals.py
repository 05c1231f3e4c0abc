"""Error answers of the web server itself, for requests that do not reach the application. They close the connection."""

import json
import logging
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidHTTPVersion,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.request_id import REQUEST_ID_HEADER, accepted_or_new
from orchestrator_site.base.intervals import WebIntervals

logger = logging.getLogger(__name__)

_SENTENCES: Final = {
    LimitRequestLine: (HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long"),
    LimitRequestHeaders: (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request headers are too large"),
    ExpectationFailed: (HTTPStatus.EXPECTATION_FAILED, "the only supported expectation is 100-continue"),
    UnsupportedTransferCoding: (HTTPStatus.NOT_IMPLEMENTED, error_texts.UNSUPPORTED_CODING),
}


class Refusal(Exception):
    """An error answer to a request that is not read any further."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    @classmethod
    def from_parser(cls, error: ParseException) -> "Refusal":
        """Translate an error of gunicorn's parser; the answer repeats nothing of the request."""
        if isinstance(error, InvalidHTTPVersion) and isinstance(error.version, tuple):  # well formed, but not 1.x
            return cls(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "the HTTP version is not supported: use HTTP/1.1")
        return cls(*_SENTENCES.get(type(error), (HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")))

    def answer(self, request: Any, *, with_body: bool) -> bytes:
        """Return the whole response, and log a line about it. `request` is gunicorn's; None if its head is not known."""
        request_id = request_id_of(request)
        details = {"status": self.status.value, "reason": self.sentence}
        logger.info("a request was refused: %(status)d, %(reason)s", details, extra={"request_id": request_id})
        return self.encode(request_id, with_body=with_body)

    def encode(self, request_id: str, *, with_body: bool = True) -> bytes:
        """Return the whole response."""
        body = json.dumps({"error": self.sentence}).encode()
        seconds = round(WebIntervals().retry_busy)
        retry = f"Retry-After: {seconds}\r\n" if self.status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nConnection: close\r\n{retry}"
            f"{REQUEST_ID_HEADER}: {request_id}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + (body if with_body else b"")


def request_id_of(request: Any) -> str:
    """Return the id that gunicorn's `Request` came with, or a new one if it has none or is None."""
    headers = () if request is None else request.headers
    return accepted_or_new(next((value for name, value in headers if name == REQUEST_ID_HEADER.upper()), ""))
