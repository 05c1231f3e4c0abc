"""From a URL to a file that is complete, or to an error; never to half a file."""

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
from jobs.transfers.http_attempt import PeerAnswer, TransferLimits, TryAgain, exchange, out_of_time, persistently, unsuccessful
from jobs.transfers.progress import Progress
from jobs.transfers.sentences import clipped
from orchestrator_site.base.egress import http_client
from orchestrator_site.base.values.http_urls import InvalidUrl, follow

_METHOD: Final = "GET"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES: Final = 256 * 1024
_OURS: Final = frozenset({"accept-encoding", "range", "if-range"})
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,1024}"')
_DATE: Final = re.compile(r"[\x20-\x7e]{1,64}")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)


@contextmanager
def fetched(
    url: str, headers: Mapping[str, str], sha256: str | None, limits: TransferLimits, interrupt: Interrupt, progress: Progress
) -> Iterator["Spool"]:
    """The whole content of `url`, checked, as a file that is gone afterwards.

    `headers` go to the URL's own origin only; Range, If-Range and Accept-Encoding among them are left out. `sha256` is
    hexadecimal. Raises `DownloadFailed`, `Interrupted`, and `DiskFull` having given back what it took of the disk.
    """
    with Spool(limits.spool_directory) as spool:
        persistently(_Download(url, headers, sha256, limits, interrupt, spool, progress).attempt, limits, interrupt)
        yield spool


class Spool:
    """What was received so far, in a file without a name: a crash leaves nothing of it.

    Raises `DiskFull`, `DownloadFailed` where the disk does not take it for another reason.
    """

    def __init__(self, directory: Path) -> None:
        with _on_disk():
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
            with _on_disk():
                rest = rest[self._file.write(rest) :]
        self._sha256.update(data)
        self.size += len(data)

    def clear(self) -> None:
        with _on_disk():
            self._file.seek(0)
            self._file.truncate()
        self._sha256 = hashlib.sha256()
        self.size = 0

    def chunks(self) -> Iterator[bytes]:
        """The content from its start."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk


class _Download:
    """One file, over as many tries as it takes. Each starts at the first URL: where it redirects to may change."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        sha256: str | None,
        limits: TransferLimits,
        interrupt: Interrupt,
        spool: Spool,
        progress: Progress,
    ) -> None:
        self._url = url
        self._headers = {name: value for name, value in headers.items() if name.lower() not in _OURS}
        self._sha256 = sha256.lower() if sha256 else None
        self._limits = limits
        self._interrupt = interrupt
        self._spool = spool
        self._progress = progress
        self._expected: int | None = None  # length of the whole, as announced
        self._validator = ""  # names the version that the spool has a part of; empty: it cannot be resumed
        self._encoding = ""  # Content-Encoding of that version

    def attempt(self) -> None:
        """Receive the file or what is missing of it. Raises `TryAgain`, `DownloadFailed`, `Interrupted`."""
        resuming = bool(self._validator and self._spool.size)
        with self._answer(resuming) as (url, answer):
            if resuming and answer.status_code == HTTPStatus.PARTIAL_CONTENT:
                self._resume(answer)
            elif resuming and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise self._from_the_start("it cannot be resumed")
            elif answer.status_code == HTTPStatus.OK:
                resuming = False
                self._begin(answer)
            else:
                raise unsuccessful(_METHOD, url, answer)
            self._receive(answer)
        if self._sha256 is not None and self._spool.sha256 != self._sha256:
            if resuming:  # maybe parts of two versions: the server's word for it was not enough
                raise self._from_the_start("its resumed content has another sha256")
            raise DownloadFailed(f"{self._shown} has another sha256 than the job says: {self._spool.sha256}")

    @property
    def _shown(self) -> str:
        return clipped(http_client.redact(self._url))

    @contextmanager
    def _answer(self, resuming: bool) -> Iterator[tuple[str, PeerAnswer]]:
        """The answer at the end of all redirects, and the URL that gave it."""
        conditions = {"Range": f"bytes={self._spool.size}-", "If-Range": self._validator} if resuming else {}
        url, headers = self._url, self._headers
        for _ in range(_MAX_REDIRECTS + 1):
            with exchange(_METHOD, url, {**headers, **conditions}, None, self._limits, self._interrupt) as answer:
                location = answer.headers.get("Location")
                if answer.status_code not in _REDIRECTS or location is None:
                    yield url, answer
                    return
            url = self._redirected(url, location)
            if not self._is_home(url):
                headers = {}  # and they stay away, even when it leads back
        raise DownloadFailed(f"{self._shown} redirects more than {_MAX_REDIRECTS} times")

    def _redirected(self, url: str, location: str) -> str:
        try:
            return follow(url, location)
        except InvalidUrl as error:
            raise DownloadFailed(f"{self._shown} redirects to a URL that cannot be requested: {error}") from error

    def _is_home(self, url: str) -> bool:
        """Whether a URL has the origin that the client's headers are for."""
        return http_client.origin_of(url) == http_client.origin_of(self._url)

    def _begin(self, answer: PeerAnswer) -> None:
        """Receive from the first byte. A content encoding that was not asked for is part of the file."""
        self._spool.clear()
        self._validator = _validator(answer.headers)
        self._encoding = _encoding(answer.headers)
        self._expected = None
        length = answer.headers.get("Content-Length")
        if length is not None:
            if not _LENGTH.fullmatch(length.strip()):
                raise DownloadFailed(f"{self._shown} announces a length that cannot be read")
            self._expect(int(length))

    def _resume(self, answer: PeerAnswer) -> None:
        """From where it broke off: only what the server says it gives, and only of the same version."""
        given = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if given is None or int(given[1]) != self._spool.size:
            raise self._from_the_start("it resumes at the wrong place")
        if "Content-Encoding" in answer.headers and _encoding(answer.headers) != self._encoding:
            raise self._from_the_start("it changed its content encoding meanwhile")
        if given[3] == "*":
            return
        total = int(given[3])
        etag = answer.headers.get("ETag", self._validator)
        if self._expected not in (None, total):
            raise self._from_the_start("it changed its length meanwhile")
        if self._validator.startswith('"') and etag != self._validator:
            raise self._from_the_start("it changed meanwhile")
        self._expect(total)

    def _expect(self, length: int) -> None:
        if length > self._limits.size:
            raise DownloadFailed(f"{self._shown} has {length} bytes, more than the {self._limits.size} that are allowed")
        self._expected = length

    def _receive(self, answer: PeerAnswer) -> None:
        while data := answer.raw.read1(_CHUNK_BYTES, decode_content=False):
            received = self._spool.size + len(data)
            if self._expected is not None and received > self._expected:
                raise DownloadFailed(f"{self._shown} is longer than the {self._expected} bytes announced")
            if received > self._limits.size:
                raise DownloadFailed(f"{self._shown} has more than the {self._limits.size} bytes that are allowed")
            self._spool.append(data)
            self._progress("downloading", received, self._expected)
            self._check_time()
        self._check_time()
        if self._expected is not None and self._spool.size < self._expected:
            raise TryAgain(DownloadFailed(f"{self._shown} broke off after {self._spool.size} of {self._expected} bytes"))

    def _check_time(self) -> None:
        """Also at the end: where it is not announced, a connection that was shut down for us looks complete."""
        self._interrupt.check()
        if time.monotonic() >= self._limits.deadline:
            raise out_of_time(_METHOD, self._url)

    def _from_the_start(self, why: str) -> TryAgain:
        self._spool.clear()
        self._validator = ""
        return TryAgain(DownloadFailed(f"{self._shown} cannot be completed: {why}"))


def _validator(headers: Mapping[str, str]) -> str:
    """What to send as If-Range (RFC 9110, 13.1.5), empty where nothing names this version exactly enough."""
    if headers.get("Accept-Ranges", "").strip().lower() == "none":
        return ""
    etag, modified = headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    return modified if _DATE.fullmatch(modified) else ""


def _encoding(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Encoding", "").strip().lower()


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull("the worker's disk has no room for the download") from error
        raise DownloadFailed(f"the download cannot be kept on the node's disk: {error.strerror}") from error
