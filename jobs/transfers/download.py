"""Downloads a URL to a complete file, or fails; resumes after a broken connection."""

import errno
import hashlib
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from jobs.errors import DiskFull, DownloadFailed
from jobs.interrupt import Interrupt
from jobs.transfers.formatting import over_limit, truncate
from jobs.transfers.http_attempts import (
    Answer,
    RetryableError,
    TransferLimits,
    deadline_exceeded,
    error_for_status,
    send_request,
    with_retries,
)
from jobs.transfers.progress import ProgressCallback
from orchestrator_site.base.egress import http_client
from orchestrator_site.base.values.http_urls import InvalidUrl, follow

_METHOD: Final = "GET"
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES: Final = 256 * 1024
_SET_HERE: Final = frozenset({"accept-encoding", "range", "if-range"})
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,1024}"')
_DATE: Final = re.compile(r"[\x20-\x7e]{1,64}")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)


@contextmanager
def download_to_spool(
    url: str,
    headers: Mapping[str, str],
    sha256: str | None,
    limits: TransferLimits,
    interrupt: Interrupt,
    progress: ProgressCallback,
) -> Iterator["Spool"]:
    """Yield the whole, checked content of `url` in a file that is deleted after the block.

    `headers` go to the URL's own origin only; Range, If-Range and Accept-Encoding among them are dropped. `sha256` is
    hexadecimal. Raise `DownloadFailed`, `Interrupted` and `DiskFull`.
    """
    with Spool(limits.spool_directory) as spool:
        with_retries(_Download(url, headers, sha256, limits, interrupt, spool, progress).attempt, limits, interrupt)
        yield spool


class Spool:
    """A file without a name for what was received so far: a crash leaves nothing of it.

    Its methods raise `DiskFull`, and `DownloadFailed` for other errors of the disk.
    """

    def __init__(self, directory: Path) -> None:
        with _translating_disk_errors():
            directory.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed by __exit__
        self.clear()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            with _translating_disk_errors():
                rest = rest[self._file.write(rest) :]
        self._sha256.update(data)
        self.size += len(data)

    def clear(self) -> None:
        with _translating_disk_errors():
            self._file.seek(0)
            self._file.truncate()
        self._sha256 = hashlib.sha256()
        self.size = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its start."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk


class _Download:
    """One file over several attempts. Each starts at the original URL, because redirects may change."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        sha256: str | None,
        limits: TransferLimits,
        interrupt: Interrupt,
        spool: Spool,
        progress: ProgressCallback,
    ) -> None:
        self._url = url
        self._headers = {name: value for name, value in headers.items() if name.lower() not in _SET_HERE}
        self._sha256 = sha256.lower() if sha256 else None
        self._limits = limits
        self._interrupt = interrupt
        self._spool = spool
        self._progress = progress
        self._expected: int | None = None  # size of the whole file, if the server announced it
        self._validator = ""  # of the version in the spool, for If-Range; empty: it cannot be resumed
        self._encoding = ""  # Content-Encoding of that version

    def attempt(self) -> None:
        """Receive the file, or the rest of it. Raise `RetryableError`, `DownloadFailed`, `Interrupted`."""
        resuming = bool(self._validator and self._spool.size)
        with self._answer(resuming) as (url, answer):
            if resuming and answer.status_code == HTTPStatus.PARTIAL_CONTENT:
                self._resume(answer)
            elif resuming and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise self._cannot_resume("the server refused the range")
            elif answer.status_code == HTTPStatus.OK:
                resuming = False
                self._begin(answer)
            else:
                raise error_for_status(_METHOD, url, answer)
            self._receive(answer)
        if self._sha256 is not None and self._spool.sha256 != self._sha256:
            if resuming:  # these may be parts of two versions, whatever the server said
                raise self._cannot_resume("its sha256 is wrong")
            raise DownloadFailed(f"{self._shown} has a different sha256 than the job specifies: {self._spool.sha256}")

    @property
    def _shown(self) -> str:
        return truncate(http_client.redact(self._url))

    @contextmanager
    def _answer(self, resuming: bool) -> Iterator[tuple[str, Answer]]:
        """Yield the URL at the end of all redirects and its answer."""
        conditions = {"Range": f"bytes={self._spool.size}-", "If-Range": self._validator} if resuming else {}
        url, headers = self._url, self._headers
        for _ in range(_MAX_REDIRECTS + 1):
            with send_request(_METHOD, url, {**headers, **conditions}, None, self._limits, self._interrupt) as answer:
                location = answer.headers.get("Location")
                if answer.status_code not in _REDIRECTS or location is None:
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

    def _begin(self, answer: Answer) -> None:
        """Prepare to receive the file from its first byte. A content encoding is part of the file."""
        self._spool.clear()
        self._validator = _validator(answer.headers)
        self._encoding = _encoding(answer.headers)
        self._expected = None
        length = answer.headers.get("Content-Length")
        if length is not None:
            if not _LENGTH.fullmatch(length.strip()):
                raise DownloadFailed(f"{self._shown} has an invalid Content-Length")
            self._expect(int(length))

    def _resume(self, answer: Answer) -> None:
        """Prepare to receive the rest. Raise `RetryableError` if the answer is anything else, or of another version."""
        given = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if given is None or int(given[1]) != self._spool.size:
            raise self._cannot_resume("the server sent the wrong range")
        if "Content-Encoding" in answer.headers and _encoding(answer.headers) != self._encoding:
            raise self._cannot_resume("its content encoding changed")
        if given[3] == "*":
            return
        total = int(given[3])
        etag = answer.headers.get("ETag", self._validator)
        if self._expected not in (None, total):
            raise self._cannot_resume("its size changed")
        if self._validator.startswith('"') and etag != self._validator:
            raise self._cannot_resume("it changed")
        self._expect(total)

    def _expect(self, length: int) -> None:
        if length > self._limits.size:
            raise DownloadFailed(over_limit(self._shown, self._limits.size))
        self._expected = length

    def _receive(self, answer: Answer) -> None:
        while data := answer.raw.read1(_CHUNK_BYTES, decode_content=False):
            received = self._spool.size + len(data)
            if self._expected is not None and received > self._expected:
                raise DownloadFailed(f"{self._shown} sent more than the {self._expected} bytes it announced")
            if received > self._limits.size:
                raise DownloadFailed(over_limit(self._shown, self._limits.size))
            self._spool.append(data)
            self._progress("downloading", received, self._expected)
            self._check_time()
        self._check_time()
        if self._expected is not None and self._spool.size < self._expected:
            raise RetryableError(DownloadFailed(f"{self._shown} ended after {self._spool.size} of {self._expected} bytes"))

    def _check_time(self) -> None:
        """Raise `Interrupted` or `DownloadFailed` if time is up.

        Also needed after the last byte: without a Content-Length, a connection that was shut down looks complete.
        """
        self._interrupt.check()
        if time.monotonic() >= self._limits.deadline:
            raise deadline_exceeded(_METHOD, self._url)

    def _cannot_resume(self, reason: str) -> RetryableError:
        """Let the next attempt start from the first byte."""
        self._spool.clear()
        self._validator = ""
        return RetryableError(DownloadFailed(f"{self._shown} cannot be resumed: {reason}"))


def _validator(headers: Mapping[str, str]) -> str:
    """Return the value for If-Range (RFC 9110, 13.1.5), empty if no header identifies this version exactly."""
    if headers.get("Accept-Ranges", "").strip().lower() == "none":
        return ""
    etag, modified = headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    return modified if _DATE.fullmatch(modified) else ""


def _encoding(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Encoding", "").strip().lower()


@contextmanager
def _translating_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFull("the worker's disk is full") from error
        raise DownloadFailed(f"the download cannot be written to the worker's disk: {error.strerror}") from error
