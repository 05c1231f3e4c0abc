"""One request of a transfer and its answer, and when it is worth another try.

As docs/usage.md has it: up to 6 tries on connection errors, 60 s without a byte, 408, 425, 429 and 5xx.
"""

import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from jobs.errors import DownloadFailed, DownloadRefused, TransferFailed, UploadFailed
from jobs.interrupt import Interrupt
from jobs.transfers.sentences import clipped
from orchestrator_site.base.egress import http_client
from orchestrator_site.base.egress.retry_after import parse_retry_after
from orchestrator_site.base.intervals import TransferIntervals

Result = TypeVar("Result")

_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """How large, how long and how often. Times are in seconds."""

    size: int  # bytes of one file
    deadline: float  # on the monotonic clock; all tries and pauses end before it
    spool_directory: Path  # where downloads wait, without a name, until they are complete
    tries: int = 6
    intervals: TransferIntervals = TransferIntervals()


class TryAgain(Exception):
    """This try failed and the next may not. `failure` is what the transfer ends with if there is no next one."""

    def __init__(self, failure: TransferFailed, retry_after: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.retry_after = retry_after


class PeerAnswer(Protocol):
    """What is used of a streamed answer."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def raw(self) -> Any: ...


def persistently(attempt: Callable[[], Result], limits: TransferLimits, interrupt: Interrupt) -> Result:
    """The result of the first try that does not raise `TryAgain`.

    Between tries it pauses, longer each time and never shorter than the peer's Retry-After. Raises the last try's failure,
    with the number of tries in its sentence, and `Interrupted`.
    """
    pause = limits.intervals.retry
    for number in range(1, limits.tries + 1):
        interrupt.check()
        try:
            return attempt()
        except TryAgain as error:
            if number == limits.tries:
                raise type(error.failure)(f"{error} (tried {number} times)") from error
            wait = max(pause * random.uniform(1.0, 1.5), error.retry_after)  # noqa: S311 - spreads load, hides nothing
            if time.monotonic() + wait >= limits.deadline:
                raise type(error.failure)(f"{error} (try {number}, and there is no time for another)") from error
        interrupt.sleep(wait)
        pause *= 2
    raise AssertionError("at least one try")


@contextmanager
def exchange(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: http_client.SizedReader | None,
    limits: TransferLimits,
    interrupt: Interrupt,
) -> Iterator[PeerAnswer]:
    """Send a request and give its answer, whatever its status, to be read inside.

    Raises `TransferFailed` where the URL may not be reached or the time is up, `TryAgain` where the connection fails, also
    while the answer is read, and `Interrupted`.
    """
    left = limits.deadline - time.monotonic()
    if left <= 0:
        raise out_of_time(method, url)
    with ExitStack() as wakers:

        def on_socket(connected: socket.socket) -> None:
            wakers.enter_context(interrupt.waking(lambda: connected.shutdown(socket.SHUT_RDWR)))

        try:
            with http_client.open(
                method,
                url,
                headers=headers,
                body=body,
                connect_timeout=min(limits.intervals.connect, left),
                read_timeout=min(limits.intervals.read, left),
                total_timeout=left,
                on_socket=on_socket,
            ) as answer:
                yield answer
        except http_client.EgressDenied as error:
            raise _failed(method, f"{_what(method, url)}: {clipped(str(error))}") from error
        except http_client.EgressFailed as error:
            interrupt.check()  # a connection that was shut down to wake us looks like a broken one
            if time.monotonic() >= limits.deadline:
                raise out_of_time(method, url) from error
            raise TryAgain(_failed(method, f"{_what(method, url)}: {clipped(str(error))}")) from error


def unsuccessful(method: str, url: str, answer: PeerAnswer) -> TryAgain | TransferFailed:
    """The error that an answer's status stands for."""
    failure = _failed(method, f"{_what(method, url)} was answered {_status(answer.status_code)}", answered=True)
    if answer.status_code in _RETRIED or answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        asked = parse_retry_after(answer.headers.get("Retry-After", ""), datetime.now(UTC), answer.headers.get("Date"))
        return TryAgain(failure, asked)
    return failure


def out_of_time(method: str, url: str) -> TransferFailed:
    return _failed(method, f"{_what(method, url)} was not done in the time that transfers have")


def _failed(method: str, sentence: str, *, answered: bool = False) -> TransferFailed:
    """Return the error of a request. GET downloads, the other methods upload. `answered`: with a status that is a failure."""
    if method != "GET":
        return UploadFailed(sentence)
    return DownloadRefused(sentence) if answered else DownloadFailed(sentence)


def _what(method: str, url: str) -> str:
    return f"{method} {clipped(http_client.redact(url))}"


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
