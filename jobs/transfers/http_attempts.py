"""The HTTP requests of a transfer, and when they are retried.

docs/usage.md promises up to 6 attempts after connection errors, 60 s without a byte, 408, 425, 429 and 5xx.
"""

import math
import random
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

from jobs.errors import DownloadFailed, DownloadRefused, TransferFailed, UploadFailed
from jobs.interrupt import Interrupt
from jobs.transfers.formatting import truncate
from orchestrator_site.base.egress import http_client
from orchestrator_site.base.egress.deadlines import watchdog
from orchestrator_site.base.egress.retry_after import parse_retry_after
from orchestrator_site.base.intervals import TransferIntervals

_RETRIED_STATUSES: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_ALMOST_NO_TIME: Final = 0.001  # a socket with a time-out of 0 does not block


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """The limits of a transfer: its size, its time and its attempts."""

    size: int  # bytes of one file
    deadline: float  # on the monotonic clock; all attempts and pauses end before it
    spool_directory: Path  # for downloads that are not complete yet, in files without a name
    is_rest: bool = False  # `size` is what is left of the job's disk limit
    attempts: int = 6
    intervals: TransferIntervals = TransferIntervals()


class RetryableError(Exception):
    """An attempt failed and the next may succeed. Without a next one the transfer ends with `failure`."""

    def __init__(self, failure: TransferFailed, retry_after: float = 0.0) -> None:
        """Wrap `failure`. `retry_after` is the number of seconds that the server asks to wait."""
        super().__init__(str(failure))
        self.failure = failure
        self.retry_after = retry_after


class Attempts:
    """The attempts of one transfer. The pauses between them double, and are never shorter than the server's Retry-After."""

    def __init__(self, limits: TransferLimits) -> None:
        self._limits = limits
        self._failed = 0
        self._pause = limits.intervals.retry

    def pause_after(self, error: RetryableError) -> float:
        """Return how many seconds to sleep before the next attempt. Raise the failure if there is no next attempt.

        The failure has the number of attempts in its message.
        """
        self._failed += 1
        if self._failed == self._limits.attempts:
            raise type(error.failure)(f"{error} ({self._failed} attempts)") from error
        wait = max(self._pause * random.uniform(1.0, 1.5), error.retry_after)  # noqa: S311 - spreads load, hides nothing
        if time.monotonic() + wait >= self._limits.deadline:
            raise type(error.failure)(f"{error} (attempt {self._failed}, no time left for another)") from error
        self._pause *= 2
        return wait


class Cut(Interrupt):
    """An interrupt that ends one answer and not the transfer: the next attempt begins anew."""

    _due = math.inf  # on the monotonic clock

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Set the flag if the block takes longer than `seconds`."""
        self._due = time.monotonic() + seconds
        try:
            with watchdog.limit(seconds, self.wake):
                yield
        finally:
            self._due = math.inf

    @property
    def is_set(self) -> bool:
        return super().is_set or self.seconds_left() <= 0

    def seconds_left(self) -> float:
        """Return how long it is until the flag is set; infinite outside the block of `after`."""
        return self._due - time.monotonic()


@contextmanager
def send_request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: http_client.SizedChunks | None,
    limits: TransferLimits,
    interrupt: Interrupt,
    cut: Cut | None = None,
) -> Iterator[http_client.Answer]:
    """Send a request; yield the answer, whatever its status, with its body unread.

    Raise `TransferFailed` if the URL may not be reached or the deadline has passed, `RetryableError` if the connection
    fails or `cut` is set, and `Interrupted`, also inside the block while the body is read.
    """
    interrupt.check()
    left = limits.deadline - time.monotonic()
    if left <= 0:
        raise deadline_exceeded(method, url)
    connect = min(limits.intervals.connect, left)
    if cut is not None:  # no waker ends a connection that is not made yet
        connect = min(connect, max(cut.seconds_left(), _ALMOST_NO_TIME))
    with ExitStack() as wakers:

        def on_socket(connected: socket.socket) -> None:
            for one in (interrupt, cut):
                if one is not None:
                    wakers.enter_context(one.waking(lambda: connected.shutdown(socket.SHUT_RDWR)))

        try:
            with http_client.open(
                method,
                url,
                headers=headers,
                body=body,
                connect_timeout=connect,
                read_timeout=min(limits.intervals.read, left),
                total_timeout=left,
                on_socket=on_socket,
            ) as answer:
                yield answer
        except http_client.EgressDenied as error:
            raise _failure(method, f"{_describe(method, url)}: {truncate(str(error))}") from error
        except http_client.EgressFailed as error:
            interrupt.check()  # an interrupt shuts the connection down, which looks like a broken one
            if time.monotonic() >= limits.deadline:
                raise deadline_exceeded(method, url) from error
            raise RetryableError(_failure(method, f"{_describe(method, url)}: {truncate(str(error))}")) from error


def error_for_status(method: str, url: str, answer: http_client.Answer) -> RetryableError | TransferFailed:
    """Return the error for an answer whose status is not a success."""
    failure = _failure(method, describe_answer(method, url, answer), answered=True)
    if answer.status in _RETRIED_STATUSES or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        asked = parse_retry_after(answer.getheader("Retry-After", ""), datetime.now(UTC), answer.getheader("Date"))
        return RetryableError(failure, asked)
    return failure


def deadline_exceeded(method: str, url: str) -> TransferFailed:
    return _failure(method, f"{_describe(method, url)} did not finish within TRANSFER_TIMEOUT")


def describe_answer(method: str, url: str, answer: http_client.Answer) -> str:
    """Return the beginning of a sentence such as `PUT https://example.com/a returned 503 Service Unavailable`."""
    try:
        status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        status = str(answer.status)
    return f"{_describe(method, url)} returned {status}"


def _failure(method: str, message: str, *, answered: bool = False) -> TransferFailed:
    """Return the error of a request: GET downloads, other methods upload. `answered`: the status of its answer is an error."""
    if method != "GET":
        return UploadFailed(message)
    return DownloadRefused(message) if answered else DownloadFailed(message)


def _describe(method: str, url: str) -> str:
    return f"{method} {truncate(http_client.redact(url))}"
