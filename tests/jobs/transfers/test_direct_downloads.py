"""Downloads that are written while they arrive: what is in the container at the end, whatever breaks on the way."""

import hashlib
import tarfile
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import DownloadFailed, DownloadRefused, EngineUnavailable, Interrupted
from jobs.interrupt import Interrupt
from jobs.transfers import Workspace, download, put_download, put_inputs
from jobs.transfers.spool import Spool
from tests.helpers import fileserver
from tests.helpers.fileserver import Exchange, FileServer, cut, redirect, status
from tests.helpers.waiting import wait_for
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import Download, NewWorkspace, arrived, content

pytestmark = pytest.mark.stateless

BLOCK = tarfile.BLOCKSIZE
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CHANGED = CONTENT[::-1]


@pytest.fixture
def puts(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of bytes of each archive that the engine was given, so far."""
    sizes: list[int] = []
    put = workspace.engine.put

    def counted(index: int, tar: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in tar:
            sizes[index] += len(chunk)
            yield chunk

    def counting(name: str, directory: str, tar: Iterable[bytes]) -> None:
        sizes.append(0)
        put(name, directory, counted(len(sizes) - 1, tar))

    monkeypatch.setattr(workspace.engine, "put", counting)
    return sizes


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of bytes in each spool when it was closed."""
    sizes: list[int] = []

    class Recorded(Spool):
        def __exit__(self, *error: object) -> None:
            sizes.append(self.size)
            super().__exit__(*error)

    monkeypatch.setattr(put_inputs, "Spool", Recorded)
    return sizes


def archive_of(size: int) -> int:
    """Return the size of an archive with one file of this size: its header, its blocks, and two of zeros at the end."""
    return BLOCK + size + -size % BLOCK + 2 * BLOCK


def is_complete(puts: list[int]) -> bool:
    """Return whether an archive had the whole file."""
    return any(size >= BLOCK + len(CONTENT) for size in puts)


def test_a_large_file_is_written_while_it_arrives(
    workspace: Workspace, server: FileServer, download: Download, spooled: list[int]
) -> None:
    # Given a server that sends the second half of a file only after the first is in the container
    half = bytes(put_inputs.ALWAYS_SPOOLED + 1024**2)

    def in_two_halves(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(half)) + half)
        wait_for(lambda: workspace.engine.stat(workspace.container, "/workspace/in.bin") is not None, 20)
        exchange.wfile.write(half)

    # When it is downloaded, I expect the whole file, and only its start on the worker's disk
    assert download(server.fault("/file", in_two_halves), read=25.0) == 2 * len(half)
    assert arrived(workspace) == half + half
    assert put_inputs.ALWAYS_SPOOLED <= spooled[0] < put_inputs.ALWAYS_SPOOLED + 1024**2


@pytest.mark.usefixtures("small_spool")
class TestOneArchive:
    """A file whose connection breaks is continued in the same archive."""

    def test_it_resumes_in_the_middle_of_the_archive(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int], spooled: list[int]
    ) -> None:
        # Given a download whose connection breaks three times after its start
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(2000), cut(3000), cut(10))
        # When it is done, I expect requests for the missing parts only
        assert download(url, sha256=SHA256) == len(CONTENT)
        ranges = [request.headers.get("Range") for request in server.requests]
        assert ranges == [None, "bytes=2000-", "bytes=5000-", "bytes=5010-"]
        # And one archive, with the spooled start of the file
        assert arrived(workspace) == CONTENT
        assert puts == [archive_of(len(CONTENT))]
        assert spooled == [put_inputs.ALWAYS_SPOOLED]

    def test_every_redirect_is_followed_again(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int]
    ) -> None:
        server.serve("/target", CONTENT, ETag='"1"')
        server.fault("/target", cut(2000))
        url = server.fault("/file", redirect("/target"), redirect("/target"))
        assert download(url) == len(CONTENT)
        assert [request.path for request in server.requests] == ["/file", "/target"] * 2
        assert arrived(workspace) == CONTENT
        assert len(puts) == 1

    def test_a_content_encoding_is_part_of_the_file(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int]
    ) -> None:
        server.serve("/file", CONTENT, ETag='"1"', Content_Encoding="gzip")
        assert download(server.fault("/file", cut(2000)), sha256=SHA256) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert len(puts) == 1

    @given(data=st.data())
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_what_arrives_is_the_file(
        self, workspace: Workspace, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
    ) -> None:
        # Given a file of any size around the blocks of a tar archive, and connections that break anywhere
        size = data.draw(st.integers(0, 12).map(lambda blocks: blocks * BLOCK)) + data.draw(st.integers(-2, 2))
        file = (b"0123456789abcdef" * 400)[: max(size, 0)]
        breaks = data.draw(st.lists(st.integers(0, len(file)), max_size=5))
        version = data.draw(st.sampled_from([{"ETag": '"1"'}, {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}, {}]))
        monkeypatch.setattr(put_inputs, "ALWAYS_SPOOLED", data.draw(st.integers(1, 2000)))
        monkeypatch.setattr(download, "_CHUNK_BYTES", data.draw(st.integers(1, 2000)))
        path = f"/file-{next(NUMBERS)}"
        server.serve(path, file, **version)
        url = server.fault(path, *[cut(after) for after in breaks])
        # When it is downloaded
        limits = workspaces.limits(tmp_path, retry=0.0)
        sha256 = hashlib.sha256(file).hexdigest()
        got = put_download(workspace, "in.bin", url, {}, sha256, limits=limits, interrupt=Interrupt())
        # I expect exactly the file
        assert got == len(file)
        assert arrived(workspace) == file


NUMBERS = count()


@pytest.mark.usefixtures("small_spool")
class TestAnotherArchive:
    """A file that cannot be continued begins anew, and is complete before the next archive begins."""

    @pytest.mark.parametrize("version", [{}, {"ETag": 'W/"weak"'}, {"ETag": '"1"', "Accept-Ranges": "none"}])
    def test_without_a_validator(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int], version: dict[str, str]
    ) -> None:
        server.serve("/file", CONTENT, **version)
        assert download(server.fault("/file", cut(2000)), sha256=SHA256) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert [request.headers.get("Range") for request in server.requests] == [None, None]
        assert puts[0] < BLOCK + len(CONTENT)
        assert puts[1:] == [archive_of(len(CONTENT))]

    def test_without_ranges(self, workspace: Workspace, server: FileServer, download: Download, puts: list[int]) -> None:
        server.serve("/file", CONTENT, ranges=False, ETag='"1"')
        assert download(server.fault("/file", cut(2000)), sha256=SHA256) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert len(puts) == 2

    @pytest.mark.parametrize("new", [CHANGED, CHANGED + b"x", b"short", b""], ids=["same size", "longer", "shorter", "empty"])
    def test_a_file_that_changes(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int], new: bytes
    ) -> None:
        # Given a file that is replaced after a break
        def cut_and_replace(exchange: Exchange) -> None:
            cut(2000)(exchange)
            server.serve("/file", new, ETag='"2"')

        server.serve("/file", CONTENT, ETag='"1"')
        # When it is downloaded, I expect the new file and nothing of the old one
        assert download(server.fault("/file", cut_and_replace)) == len(new)
        assert arrived(workspace) == new
        assert len(puts) == 2

    @pytest.mark.parametrize(
        "answer",
        [
            status(416),
            status(206, CONTENT[1999:], Content_Range=f"bytes 1999-{len(CONTENT) - 1}/{len(CONTENT)}"),
            status(206, CONTENT[2000:], Content_Range=f"bytes 2000-{len(CONTENT) - 1}/{len(CONTENT) + 1}"),
            status(206, CHANGED[2000:], Content_Range=f"bytes 2000-{len(CONTENT) - 1}/{len(CONTENT)}"),
        ],
        ids=["416", "another range", "another length", "other content"],
    )
    def test_a_wrong_range(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int], answer: fileserver.Fault
    ) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        assert download(server.fault("/file", cut(2000), answer), sha256=SHA256) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=2000-", None]
        assert len(puts) == 2

    @pytest.mark.parametrize("interval", ["direct_max", "direct_silence"])
    def test_a_download_that_becomes_too_slow(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int], spooled: list[int], interval: str
    ) -> None:
        # Given a server that falls silent in the middle of an archive
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(2000, hang=True))
        # When it sends nothing for longer than a container may be locked
        assert download(url, read=20.0, **{interval: 0.2}) == len(CONTENT)
        # I expect the next request to be for the whole file, on the worker's disk
        assert arrived(workspace) == CONTENT
        assert [request.headers.get("Range") for request in server.requests] == [None, None]
        assert len(puts) == 2
        assert spooled == [len(CONTENT)]

    def test_a_server_that_answers_nothing_after_a_break(
        self, workspace: Workspace, server: FileServer, download: Download, puts: list[int]
    ) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(2000), fileserver.hang)
        assert download(url, read=20.0, direct_silence=0.2) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=2000-", None]
        assert len(puts) == 2

    def test_a_server_that_drips(self, workspace: Workspace, server: FileServer, download: Download, puts: list[int]) -> None:
        # Given a server that sends a byte now and then after the start of a file
        def dripping(exchange: Exchange) -> None:
            exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT[:2000])
            while not exchange.files.closing.wait(0.02):
                exchange.wfile.write(b"x")

        server.serve("/file", CONTENT)
        # When it has taken too long in all, I expect the whole file from another connection
        assert download(server.fault("/file", dripping), direct_max=0.3) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert len(puts) == 2


@pytest.mark.usefixtures("small_spool")
class TestSpooled:
    def test_a_slow_download_is_spooled(
        self, workspace: Workspace, server: FileServer, download: Download, spooled: list[int]
    ) -> None:
        assert download(server.serve("/file", CONTENT), direct=0.0) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert spooled == [len(CONTENT)]

    def test_a_download_of_unknown_length_is_spooled(
        self, workspace: Workspace, server: FileServer, download: Download, spooled: list[int]
    ) -> None:
        assert download(server.fault("/file", fileserver.raw("HTTP/1.1 200 OK\n", CONTENT))) == len(CONTENT)
        assert arrived(workspace) == CONTENT
        assert spooled == [len(CONTENT)]


@pytest.mark.usefixtures("small_spool")
class TestFailures:
    """A file that fails is never complete in the container."""

    @pytest.mark.parametrize("breaks", [(), (2000,)], ids=["at once", "resumed"])
    def test_a_wrong_sha256(self, server: FileServer, download: Download, puts: list[int], breaks: tuple[int, ...]) -> None:
        server.serve("/file", CHANGED, ETag='"1"')
        with pytest.raises(DownloadFailed, match="has a different sha256"):
            download(server.fault("/file", *map(cut, breaks)), sha256=SHA256)
        assert not is_complete(puts)

    def test_a_server_that_always_sends_less_than_it_announces(
        self, server: FileServer, download: Download, puts: list[int]
    ) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        with pytest.raises(DownloadFailed, match=r"\(6 attempts\)"):
            download(server.fault("/file", *[cut(1500)] * 6))
        assert not is_complete(puts)

    def test_a_range_that_is_too_long(self, server: FileServer, download: Download, puts: list[int]) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        rest = status(206, CONTENT[2000:] + b"x", Content_Range=f"bytes 2000-{len(CONTENT) - 1}/{len(CONTENT)}")
        with pytest.raises(DownloadFailed, match="bytes it announced"):
            download(server.fault("/file", cut(2000), rest))
        assert not is_complete(puts)

    def test_there_are_six_attempts_in_all(self, server: FileServer, download: Download, puts: list[int]) -> None:
        # Given a server without ranges whose connections all break, the first after the archive has begun
        server.serve("/file", CONTENT)
        with pytest.raises(DownloadFailed, match=r"\(6 attempts\)"):
            download(server.fault("/file", *[cut(2000)] * 7))
        assert len(server.requests) == 6
        assert len(puts) == 1

    def test_a_refusal_of_the_rest_is_final(self, server: FileServer, download: Download, puts: list[int]) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        with pytest.raises(DownloadRefused, match="returned 404"):
            download(server.fault("/file", cut(2000), status(HTTPStatus.NOT_FOUND)))
        assert not is_complete(puts)

    def test_an_engine_that_breaks_off_is_not_a_failed_download(
        self, workspace: Workspace, server: FileServer, download: Download, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(name: str, directory: str, tar: Iterable[bytes]) -> None:
            next(iter(tar))
            raise EngineUnavailable("away")

        monkeypatch.setattr(workspace.engine, "put", broken)
        with pytest.raises(EngineUnavailable):
            download(server.serve("/file", CONTENT))


def test_an_interrupt_ends_it_and_frees_the_container(
    new_workspace: NewWorkspace, server: FileServer, tmp_path: Path, small_spool: None
) -> None:
    # Given a download that hangs in the middle of its archive
    workspace = new_workspace()
    server.serve("/file", CONTENT, ETag='"1"')
    url = server.fault("/file", cut(2000, hang=True))
    interrupt = Interrupt()
    waker = threading.Thread(target=lambda: (server.hanging.acquire(timeout=20), interrupt.wake()))
    waker.start()
    bound = Workspace(workspace.engine.bound(interrupt), workspace.container, workspace.path, workspace.user)
    # When the job is cancelled
    with pytest.raises(Interrupted):
        put_download(bound, "in.bin", url, {}, limits=workspaces.limits(tmp_path), interrupt=interrupt)
    waker.join()
    # I expect no second request, and an engine that can remove the container
    assert len(server.requests) == 1
    workspace.engine.remove(workspace.container)


def test_a_file_that_begins_anew_replaces_what_an_engine_has_of_it(
    new_workspace: NewWorkspace, server: FileServer, tmp_path: Path, small_spool: None
) -> None:
    # Given a server without ranges, whose connection breaks in the middle of the archive
    workspace = new_workspace()
    server.serve("/file", CONTENT)
    url = server.fault("/file", cut(5000))
    # When it is downloaded
    got = put_download(workspace, "in.bin", url, {}, SHA256, limits=workspaces.limits(tmp_path), interrupt=Interrupt())
    # I expect the whole file
    assert got == len(CONTENT)
    assert content(workspace, "/workspace/in.bin") == CONTENT


def progress_of(workspace: Workspace, url: str, tmp_path: Path) -> list[tuple[Any, ...]]:
    told: list[tuple[Any, ...]] = []
    put_download(
        workspace,
        "in.bin",
        url,
        {},
        limits=workspaces.limits(tmp_path),
        interrupt=Interrupt(),
        progress=lambda *values: told.append(values),
    )
    return told


def test_its_progress_is_that_of_the_download(
    workspace: Workspace, server: FileServer, tmp_path: Path, small_spool: None
) -> None:
    told = progress_of(workspace, server.serve("/file", CONTENT), tmp_path)
    assert {stage for stage, _, _ in told} == {"downloading"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == ("downloading", len(CONTENT), len(CONTENT))
