"""Downloads a URL piece by piece and checks it; resumes after a broken connection."""

import hashlib
import math
import re
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from typing import Final, NamedTuple

from jobs.errors import DownloadFailed
from jobs.interrupt import Interrupt
from jobs.transfers.formatting import over_limit, truncate
from jobs.transfers.http_attempts import (
    Attempts,
    Cut,
    RetryableError,
    TransferLimits,
    deadline_exceeded,
    error_for_status,
    send_request,
)
from jobs.transfers.progress import ProgressCallback
from orchestrator_site.base import measurements
from orchestrator_site.base.egress import http_client
from orchestrator_site.base.values.http_urls import InvalidUrl, follow

_METHOD: Final = "GET"
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES: Final = 256 * 1024
_SET_HERE: Final = frozenset({"accept-encoding", "range", "if-range"})
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,1024}"')
_DATE: Final = re.compile(r"[\x20-\x7e]{1,64}")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)


class Piece(NamedTuple):
    """Bytes of a file and where they belong. A piece at offset 0 begins the file anew: all pieces before it are void."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class Download:
    """One file over several attempts. Each starts at the original URL, because redirects may change."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        sha256: str | None,
        limits: TransferLimits,
        interrupt: Interrupt,
        progress: ProgressCallback,
    ) -> None:
        """Describe it; nothing is sent before the first piece is asked for.

        `headers` go to the URL's own origin only; Range, If-Range and Accept-Encoding among them are dropped. `sha256` is
        hexadecimal.
        """
        self.size: int | None = None  # of the whole file, if the server announced it
        self._url = url
        self._headers = {name: value for name, value in headers.items() if name.lower() not in _SET_HERE}
        self._sha256 = sha256.lower() if sha256 else None
        self._limits = limits
        self._interrupt = interrupt
        self._progress = progress
        self._received = 0  # bytes
        self._digest = hashlib.sha256()  # of them, if the job specifies a sha256
        self._began = 0.0  # when the first of them was awaited, by `time.monotonic`
        self._cut = Cut()  # set if this version is given up
        self._validator = ""  # of the version they are of, for If-Range; empty: it cannot be resumed
        self._encoding = ""  # Content-Encoding of that version

    def pieces(self) -> Generator[Piece, None, None]:
        """Yield the whole file, the last piece only after all of them were checked.

        An empty piece says at once, before any pause, that the file begins anew. Raise `DownloadFailed`, `DownloadRefused` and
        `Interrupted`.
        """
        held: Piece | None = None
        for piece in self._pieces():
            if held is not None and piece.offset == held.end:
                yield held
            held = piece if piece.data else None
            if held is None:
                yield piece
        if held is not None:
            yield held

    def seconds_left(self) -> float:
        """Return how long the rest will take at the average speed so far; infinite if the size of the file is unknown."""
        if self.size is None or not self._received:
            return math.inf
        return (self.size - self._received) * (time.monotonic() - self._began) / self._received

    def anew_after(self, seconds: float) -> AbstractContextManager[None]:
        """Begin the file anew if the block, which asks for one piece, would take longer than `seconds`."""
        return self._cut.after(seconds)

    def _pieces(self) -> Iterator[Piece]:
        attempts = Attempts(self._limits)
        while True:
            if self._cut.is_set:
                yield self._anew()
            try:
                yield from self._attempt()
            except RetryableError as error:
                if self._cut.is_set:  # this attempt was ended here, and has not failed
                    continue
                pause = attempts.pause_after(error)
                if not self._validator or pause >= self._cut.seconds_left():
                    yield self._anew()
                self._interrupt.sleep(pause)
            else:
                return

    def _attempt(self) -> Iterator[Piece]:
        """Receive the file, or the rest of it. Raise `RetryableError`, `DownloadFailed`, `Interrupted`."""
        resuming = bool(self._validator and self._received)
        with self._answer(resuming) as (url, answer):
            if resuming and answer.status == HTTPStatus.PARTIAL_CONTENT:
                self._resume(answer)
            elif resuming and answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise self._cannot_resume("the server refused the range")
            elif answer.status == HTTPStatus.OK:
                resuming = False
                yield self._anew()
                self._begin(answer)
            else:
                raise error_for_status(_METHOD, url, answer)
            yield from self._receive(answer)
        if self._sha256 is not None and self._digest.hexdigest() != self._sha256:
            if resuming:  # these may be parts of two versions, whatever the server said
                raise self._cannot_resume("its sha256 is wrong")
            actual = self._digest.hexdigest()
            raise DownloadFailed(f"{self._shown} has a different sha256 than the job specifies: {actual}")

    def _anew(self) -> Piece:
        """Forget what was received, and return the piece that says so."""
        self.size = None
        self._received = 0
        self._digest = hashlib.sha256()
        self._cut.clear()
        self._validator = ""
        return Piece(0, b"")

    @property
    def _shown(self) -> str:
        return truncate(http_client.redact(self._url))

    @contextmanager
    def _answer(self, resuming: bool) -> Iterator[tuple[str, http_client.Answer]]:
        """Yield the URL at the end of all redirects and its answer."""
        conditions = {"Range": f"bytes={self._received}-", "If-Range": self._validator} if resuming else {}
        url, headers = self._url, self._headers
        for _ in range(_MAX_REDIRECTS + 1):
            with send_request(_METHOD, url, {**headers, **conditions}, None, self._limits, self._interrupt, self._cut) as answer:
                location = answer.getheader("Location")
                if answer.status not in _REDIRECTS or location is None:
                    yield url, answer
                    return
            url = self._follow(url, location)
            if http_client.origin_of(url) != http_client.origin_of(self._url):
                headers = {}  # from here on, even if a redirect leads back to the original origin
        raise DownloadFailed(f"{self._shown} redirects more than {_MAX_REDIRECTS} times")

    def _follow(self, url: str, location: str) -> str:
        try:
            return follow(url, location)
        except InvalidUrl as error:
            raise DownloadFailed(f"{self._shown} redirects to an invalid URL: {error}") from error

    def _begin(self, answer: http_client.Answer) -> None:
        """Prepare to receive the file from its first byte. A content encoding is part of the file."""
        self._began = time.monotonic()
        self._validator = _validator(answer)
        self._encoding = _encoding(answer)
        length = answer.getheader("Content-Length")
        if length is not None:
            if not _LENGTH.fullmatch(length.strip()):
                raise DownloadFailed(f"{self._shown} has an invalid Content-Length")
            self._expect(int(length))

    def _resume(self, answer: http_client.Answer) -> None:
        """Prepare to receive the rest. Raise `RetryableError` if the answer is anything else, or of another version."""
        given = _CONTENT_RANGE.fullmatch(answer.getheader("Content-Range", "").strip())
        if given is None or int(given[1]) != self._received:
            raise self._cannot_resume("the server sent the wrong range")
        if "Content-Encoding" in answer.headers and _encoding(answer) != self._encoding:
            raise self._cannot_resume("its content encoding changed")
        if given[3] == "*":
            return
        total = int(given[3])
        etag = answer.getheader("ETag", self._validator)
        if self.size not in (None, total):
            raise self._cannot_resume("its size changed")
        if self._validator.startswith('"') and etag != self._validator:
            raise self._cannot_resume("it changed")
        self._expect(total)

    def _expect(self, length: int) -> None:
        if length > self._limits.size:
            raise DownloadFailed(over_limit(self._shown, self._limits.size, is_rest=self._limits.is_rest))
        self.size = length

    def _receive(self, answer: http_client.Answer) -> Iterator[Piece]:
        for data in http_client.chunks(answer, _CHUNK_BYTES):
            piece = Piece(self._received, data)
            if self.size is not None and piece.end > self.size:
                raise DownloadFailed(f"{self._shown} sent more than the {self.size} bytes it announced")
            if piece.end > self._limits.size:
                raise DownloadFailed(over_limit(self._shown, self._limits.size, is_rest=self._limits.is_rest))
            self._received = piece.end
            measurements.transferred(measurements.Direction.IN, len(data))
            if self._sha256 is not None:
                self._digest.update(data)
            yield piece
            self._progress("downloading", self._received, self.size)
            self._check_time()
            if self._cut.is_set and self._received != self.size:
                raise RetryableError(DownloadFailed(f"{self._shown} became too slow"))
        self._check_time()
        if self.size is not None and self._received < self.size:
            raise RetryableError(DownloadFailed(f"{self._shown} ended after {self._received} of {self.size} bytes"))

    def _check_time(self) -> None:
        """Raise `Interrupted` or `DownloadFailed` if time is up.

        Also needed after the last byte: without a Content-Length, a connection that was shut down looks complete.
        """
        self._interrupt.check()
        if time.monotonic() >= self._limits.deadline:
            raise deadline_exceeded(_METHOD, self._url)

    def _cannot_resume(self, reason: str) -> RetryableError:
        """Let the next attempt start from the first byte."""
        self._validator = ""
        return RetryableError(DownloadFailed(f"{self._shown} cannot be resumed: {reason}"))


def _validator(answer: http_client.Answer) -> str:
    """Return the value for If-Range (RFC 9110, 13.1.5), empty if no header identifies this version exactly."""
    if answer.getheader("Accept-Ranges", "").strip().lower() == "none":
        return ""
    etag, modified = answer.getheader("ETag", "").strip(), answer.getheader("Last-Modified", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    return modified if _DATE.fullmatch(modified) else ""


def _encoding(answer: http_client.Answer) -> str:
    return answer.getheader("Content-Encoding", "").strip().lower()
