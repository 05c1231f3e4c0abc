"""Downloads that are written while they arrive: no archive stays open during a long pause."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from jobs.errors import DownloadFailed
from jobs.interrupt import Interrupt
from jobs.transfers import Workspace
from orchestrator_site.base.egress import http_client
from tests.helpers import fileserver
from tests.helpers.fileserver import FileServer, cut, status
from tests.jobs.transfers.workspaces import Download, arrived

pytestmark = [pytest.mark.stateless, pytest.mark.usefixtures("small_spool")]

CONTENT = bytes(range(256)) * 40
LONG = 1.0  # seconds


class Pauses(Interrupt):
    """Records each pause of a download, and whether an archive is open then; the long ones are skipped."""

    def __init__(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.archives = 0
        self.long: list[tuple[float, bool]] = []
        self.short: list[bool] = []
        self._is_open = False
        self._put = engine.put
        monkeypatch.setattr(engine, "put", self._recording)

    def _recording(self, name: str, directory: str, tar: Iterable[bytes]) -> None:
        self.archives += 1
        self._is_open = True
        try:
            self._put(name, directory, tar)
        finally:
            self._is_open = False

    def sleep(self, seconds: float) -> None:
        if seconds >= LONG:
            self.long.append((seconds, self._is_open))
        else:
            self.short.append(self._is_open)
            super().sleep(seconds)


@pytest.fixture
def pauses(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Pauses:
    return Pauses(workspace.engine, monkeypatch)


@pytest.fixture
def download_with_pause(server: FileServer, download: Download, pauses: Pauses) -> Callable[..., None]:
    """Download a file in two parts: the server breaks off, and then asks to be left alone for some seconds."""

    def download_it(seconds: int, **limits: float) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(2000), status(503, Retry_After=str(seconds)))
        assert download(url, interrupt=pauses, **limits) == len(CONTENT)

    return download_it


def test_the_archive_ends_before_a_long_pause(
    workspace: Workspace, server: FileServer, download_with_pause: Callable[..., None], pauses: Pauses
) -> None:
    # When a download breaks in the middle of its archive, and the server asks for a pause that is too long
    download_with_pause(25)
    # I expect the archive to be open in the short pause before the 503, and ended before the long one
    assert pauses.short == [True]
    assert pauses.long == [(25.0, False)]
    # And the whole file in another one
    assert arrived(workspace) == CONTENT
    assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=2000-", None]
    assert pauses.archives == 2


def test_the_archive_stays_open_in_a_pause_that_ends_in_time(
    workspace: Workspace, download_with_pause: Callable[..., None], pauses: Pauses
) -> None:
    download_with_pause(2)
    assert pauses.long == [(2.0, True)]
    assert arrived(workspace) == CONTENT
    assert pauses.archives == 1


def test_a_pause_counts_towards_the_time_in_all(download_with_pause: Callable[..., None], pauses: Pauses) -> None:
    # When a pause is short enough as a silence, and too long for what is left in all
    download_with_pause(4, direct_max=3.0)
    assert pauses.long == [(4.0, False)]


def test_the_archive_ends_before_any_pause_if_the_file_begins_anew(
    workspace: Workspace, server: FileServer, download: Download, pauses: Pauses
) -> None:
    # Given a download that cannot be resumed
    server.serve("/file", CONTENT)
    assert download(server.fault("/file", cut(2000)), interrupt=pauses) == len(CONTENT)
    # I expect no archive that waits for the next attempt
    assert pauses.short == [False]
    assert arrived(workspace) == CONTENT


def test_a_connection_takes_no_longer_than_a_silence(
    server: FileServer, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the connect time-out of each request
    timeouts: list[float] = []
    real = http_client.open

    def recording(*args: Any, connect_timeout: float, **options: Any) -> Any:
        timeouts.append(connect_timeout)
        return real(*args, connect_timeout=connect_timeout, **options)

    monkeypatch.setattr(http_client, "open", recording)
    server.serve("/file", CONTENT, ETag='"1"')
    # When a download breaks before and in the middle of its archive
    assert download(server.fault("/file", cut(500), cut(1500))) == len(CONTENT)
    # I expect a short one for the request in the middle only
    assert timeouts[:2] == [10.0, 10.0]
    assert 0 < timeouts[2] < 5.0


class TestAttempts:
    """A download that becomes too slow for an archive begins anew, and has not failed."""

    def test_the_last_attempt(self, workspace: Workspace, server: FileServer, download: Download) -> None:
        # Given a download that breaks five times, and whose server falls silent in the sixth and last attempt
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(2000), *[cut(100)] * 4, cut(100, hang=True))
        # When it takes longer than a container may be locked, I expect the whole file on another connection
        assert download(url, read=20.0, direct_silence=0.5) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert server.requests[-1].headers.get("Range") is None
        assert len(server.requests) == 7

    def test_it_begins_anew_without_a_pause(self, server: FileServer, download: Download, pauses: Pauses) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(2000, hang=True))
        assert download(url, interrupt=pauses, read=20.0, direct_silence=0.2) == len(CONTENT)
        assert (pauses.short, pauses.long) == ([], [])

    def test_the_failures_before_it_still_count(self, server: FileServer, download: Download) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(2000), *[cut(100)] * 4, fileserver.hang, cut(10))
        with pytest.raises(DownloadFailed, match=r"\(6 attempts\)"):
            download(url, read=20.0, direct_silence=0.5)
        assert len(server.requests) == 7
