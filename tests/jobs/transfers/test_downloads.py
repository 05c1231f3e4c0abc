"""Downloads: a complete, checked file or an error, over redirects, broken connections and lying servers."""

import gzip
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import DownloadFailed, DownloadRefused, Interrupted, WriteFailed
from jobs.interrupt import Interrupt
from jobs.transfers import Workspace, put_download
from tests.helpers import fileserver
from tests.helpers.fileserver import FileServer, cut, raw, redirect, status
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import content, fake_workspace, mode

pytestmark = pytest.mark.stateless

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRETS = {"Authorization": "Bearer s3cret"}

Download = Callable[..., int]


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with fake_workspace() as one:
        yield one


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as one:
        yield one


@pytest.fixture
def download(workspace: Workspace, tmp_path: Path) -> Iterator[Download]:
    """Download to `in.bin`; check that nothing is left in the spool directory afterwards."""

    def run(url: str, headers: dict[str, str] | None = None, sha256: str | None = None, **changed: Any) -> int:
        interrupt = changed.pop("interrupt", None) or Interrupt()
        return put_download(
            workspace, "in.bin", url, headers or {}, sha256, limits=workspaces.limits(tmp_path, **changed), interrupt=interrupt
        )

    yield run
    assert os.listdir(tmp_path) == []


def arrived(workspace: Workspace) -> bytes:
    return content(workspace, "/workspace/in.bin")


def never_arrived(workspace: Workspace) -> bool:
    return workspace.engine.stat(workspace.container, "/workspace/in.bin") is None


class TestDownload:
    @pytest.mark.parametrize("data", [b"", b"x", CONTENT], ids=["empty", "a byte", "1 MiB"])
    def test_the_file_arrives(self, workspace: Workspace, server: FileServer, download: Download, data: bytes) -> None:
        # Given a file on a server
        url = server.serve("/file", data)
        # When it is downloaded, I expect its size, and the file in the workspace
        assert download(url) == len(data)
        assert arrived(workspace) == data

    def test_the_file_has_the_path_and_mode_of_the_job(self, workspace: Workspace, server: FileServer, tmp_path: Path) -> None:
        url = server.serve("/file", b"x")
        put_download(workspace, "a/run", url, {}, None, 0o755, limits=workspaces.limits(tmp_path), interrupt=Interrupt())
        assert mode(workspace, "/workspace/a/run") == 0o755

    def test_headers_are_sent_and_no_compression_is_requested(self, server: FileServer, download: Download) -> None:
        url = server.serve("/file", b"x")
        download(url, {**SECRETS, "accept-encoding": "gzip", "RANGE": "bytes=1-"})
        (request,) = server.of("/file")
        assert request.headers["Authorization"] == "Bearer s3cret"
        assert request.headers["Accept-Encoding"] == "identity"
        assert "range" not in map(str.lower, request.headers)

    @pytest.mark.parametrize(
        "body",
        [
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
            ("HTTP/1.1 200 OK\nConnection: close\n", b"abcde"),
            ("HTTP/1.0 200 OK\n", b"abcde"),
        ],
        ids=["chunked", "until it closes", "HTTP/1.0"],
    )
    def test_a_content_length_is_optional(
        self, workspace: Workspace, server: FileServer, download: Download, body: tuple[str, bytes]
    ) -> None:
        assert download(server.fault("/file", raw(*body))) == 5
        assert arrived(workspace) == b"abcde"

    @pytest.mark.parametrize(
        "target", ["/a%2fb/%7Ex?sig=a%2bb%3d%7e", "/bucket/a/../b?x=1", "/a/./b?x", "//a//b", "/?", '/{"a"}|^`<>?[]', "/%zz%"]
    )
    def test_path_and_query_are_sent_unchanged(self, server: FileServer, download: Download, target: str) -> None:
        with pytest.raises(DownloadRefused, match="404"):
            download(f"{server.url('')}{target}#fragment")
        assert [request.target for request in server.requests] == [target]

    def test_header_values_are_sent_in_latin_1(self, server: FileServer, download: Download) -> None:
        download(server.serve("/file", b"x"), {"X-Name": "résumé"})
        assert server.of("/file")[0].headers["X-Name"].encode("latin-1") == b"r\xe9sum\xe9"

    def test_nothing_is_requested_if_the_path_cannot_be_written(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        workspaces.plant(workspace, "/workspace", ("in.bin", b"5", ""))
        with pytest.raises(WriteFailed, match="directory"):
            download(server.serve("/file", b"x"))
        assert server.requests == []


class TestChecks:
    def test_a_sha256_may_be_upper_or_lower_case(self, server: FileServer, download: Download) -> None:
        url = server.serve("/file", CONTENT)
        assert download(url, sha256=SHA256) == download(url, sha256=SHA256.upper()) == len(CONTENT)

    def test_a_wrong_sha256_is_a_failure_and_leaves_no_file(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        url = server.serve("/file", CONTENT[:-1])
        with pytest.raises(DownloadFailed, match=r"has a different sha256 than the job specifies: [0-9a-f]{64}"):
            download(url, sha256=SHA256)
        assert never_arrived(workspace)
        assert len(server.requests) == 1

    def test_a_content_length_over_the_limit_fails_at_once(self, server: FileServer, download: Download) -> None:
        url = server.fault("/file", raw("HTTP/1.1 200 OK\nContent-Length: 10001\n", hang=True))
        with pytest.raises(DownloadFailed, match="exceeds the limit of 10000 bytes"):
            download(url, size=10_000)

    def test_a_file_of_unknown_size_stops_at_the_limit(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
        url = server.fault("/file", raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", chunk * 100, hang=True))
        with pytest.raises(DownloadFailed, match="exceeds the limit of 10000 bytes"):
            download(url, size=10_000)
        assert never_arrived(workspace)

    def test_a_file_of_exactly_the_limit_is_allowed(self, server: FileServer, download: Download) -> None:
        assert download(server.serve("/file", bytes(10_000)), size=10_000) == 10_000

    def test_a_truncated_file_is_a_failure(self, workspace: Workspace, server: FileServer, download: Download) -> None:
        # Given a server that always announces more than it sends
        faults = [raw("HTTP/1.1 200 OK\nContent-Length: 6\n", b"abcde")] * 6
        # When it is downloaded
        with pytest.raises(DownloadFailed, match=r"6 attempts"):
            download(server.fault("/file", *faults))
        # I expect no file
        assert never_arrived(workspace)

    @pytest.mark.parametrize("length", ["4", "6"])
    def test_contradicting_lengths_are_a_failure(
        self, workspace: Workspace, server: FileServer, download: Download, length: str
    ) -> None:
        head = f"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: {length}\n"
        with pytest.raises(DownloadFailed, match=r"bytes it announced|ended after"):
            download(server.fault("/file", *[raw(head, b"5\r\nabcde\r\n0\r\n\r\n")] * 6))
        assert never_arrived(workspace)

    @pytest.mark.parametrize("length", ["-5", "5x", "٥", "9" * 5000])
    def test_an_invalid_content_length_is_a_failure(
        self, workspace: Workspace, server: FileServer, download: Download, length: str
    ) -> None:
        url = server.fault("/file", *[raw(f"HTTP/1.1 200 OK\nContent-Length: {length}\n", b"abcde")] * 6)
        with pytest.raises(DownloadFailed):
            download(url)
        assert never_arrived(workspace)

    @pytest.mark.parametrize("encoding", ["gzip", "br", "aws-chunked", "gzip, identity"])
    def test_a_content_encoding_is_part_of_the_file(
        self, workspace: Workspace, server: FileServer, download: Download, encoding: str
    ) -> None:
        # Given a file with a content encoding that was not requested
        data = gzip.compress(CONTENT)
        url = server.serve("/file", data, Content_Encoding=encoding)
        # When it is downloaded, I expect the bytes as they were sent
        assert download(url, sha256=hashlib.sha256(data).hexdigest()) == len(data)
        assert arrived(workspace) == data

    @pytest.mark.parametrize("code", [201, 204, 206, 304, 400, 401, 403, 404, 410, 418, 451])
    def test_other_statuses_than_200_are_final(self, server: FileServer, download: Download, code: int) -> None:
        url = server.fault("/file", status(code))
        with pytest.raises(DownloadRefused, match=f"GET http://127.0.0.1:.*/file returned {code}"):
            download(url)
        assert len(server.requests) == 1

    def test_an_error_message_contains_no_secret(self, server: FileServer, download: Download) -> None:
        url = server.fault("/file", status(403)).replace("http://", "http://user:pa55word@") + "?token=t0ken#fragment"
        with pytest.raises(DownloadRefused) as failure:
            download(url, SECRETS)
        assert not any(secret in str(failure.value) for secret in ("s3cret", "pa55word", "t0ken", "user"))

    @pytest.mark.parametrize("path", ["%F0%9F%98%80" * 500, "😀" * 500])
    def test_an_error_message_is_short(self, server: FileServer, download: Download, path: str) -> None:
        with pytest.raises(DownloadRefused) as failure:
            download(server.url("/" + path))
        assert len(str(failure.value).encode()) <= 1024

    def test_a_denied_address_is_final(self, download: Download) -> None:
        with pytest.raises(DownloadFailed, match="EGRESS_ALLOW"):
            download("http://169.254.169.254/latest/meta-data")

    def test_a_disk_error_is_a_failure(self, server: FileServer, workspace: Workspace, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DownloadFailed, match="could not be written to the worker's disk"):
            put_download(
                workspace,
                "x",
                server.serve("/f", b"x"),
                {},
                limits=workspaces.limits(tmp_path / "file" / "spool"),
                interrupt=Interrupt(),
            )


class TestRetries:
    @pytest.mark.parametrize(
        "fault",
        [status(code) for code in (408, 425, 429, 500, 502, 503, 504, 599)]
        + [fileserver.reset, raw("not HTTP\n"), raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", b"5\r\nab")],
    )
    def test_a_temporary_error_is_retried(
        self, workspace: Workspace, server: FileServer, download: Download, fault: fileserver.Fault
    ) -> None:
        # Given a server that fails five times
        server.serve("/file", CONTENT)
        url = server.fault("/file", *[fault] * 5)
        # I expect the sixth attempt to succeed
        assert download(url, sha256=SHA256) == len(CONTENT)
        assert arrived(workspace) == CONTENT

    def test_there_are_six_attempts(self, server: FileServer, download: Download) -> None:
        url = server.fault("/file", *[status(503)] * 10)
        with pytest.raises(DownloadRefused, match=r"returned 503 Service Unavailable \(6 attempts\)"):
            download(url)
        assert len(server.requests) == 6

    def test_endless_interim_answers_are_a_failure(self, server: FileServer, download: Download) -> None:
        endless = raw("HTTP/1.1 103 Early Hints\n", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, hang=True)
        with pytest.raises(DownloadFailed, match=r"the server sent more than 10 interim answers \(6 attempts\)"):
            download(server.fault("/file", *[endless] * 6))

    def test_a_refused_connection_is_retried(self, download: Download) -> None:
        with FileServer() as gone:
            url = gone.url("/file")
        with pytest.raises(DownloadFailed, match=r"GET http://127\.0\.0\.1:\d+/file.*6 attempts"):
            download(url)

    def test_a_silent_server_is_retried(self, workspace: Workspace, server: FileServer, download: Download) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", fileserver.hang, cut(1000, hang=True))
        assert download(url, read=0.2) == len(CONTENT)
        assert arrived(workspace) == CONTENT

    def test_retry_after_is_respected(self, server: FileServer, download: Download) -> None:
        # Given a server that asks to wait for a second
        server.serve("/file", b"x")
        url = server.fault("/file", status(429, Retry_After="1"))
        began = time.monotonic()
        download(url)
        # I expect the next attempt no sooner
        assert time.monotonic() - began >= 1.0

    @pytest.mark.parametrize("later", ["3600", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)])
    def test_a_retry_after_beyond_the_deadline_is_final(self, server: FileServer, download: Download, later: str) -> None:
        url = server.fault("/file", status(503, Retry_After=later))
        with pytest.raises(DownloadRefused, match="no time left for another"):
            download(url)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("nonsense", ["soon", "-1", "Wed, 99 Nov 2026 25:61:61 GMT", "", "9" * 4000])
    def test_an_invalid_retry_after_is_ignored(self, server: FileServer, download: Download, nonsense: str) -> None:
        server.serve("/file", b"x")
        url = server.fault("/file", status(503, Retry_After=nonsense))
        if nonsense.isdigit():
            with pytest.raises(DownloadRefused, match="no time left for another"):
                download(url)
        else:
            assert download(url) == 1

    def test_the_deadline_ends_a_slow_download(self, workspace: Workspace, server: FileServer, download: Download) -> None:
        # Given a server that sends a byte now and then, without end
        def drip(exchange: fileserver.Exchange) -> None:
            exchange.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not exchange.files.closing.wait(0.01):
                exchange.wfile.write(b"x")

        with pytest.raises(DownloadFailed, match="did not finish within TRANSFER_TIMEOUT"):
            download(server.fault("/file", drip), deadline=time.monotonic() + 0.5)
        assert never_arrived(workspace)

    def test_nothing_is_requested_after_the_deadline(self, server: FileServer, download: Download) -> None:
        with pytest.raises(DownloadFailed, match="TRANSFER_TIMEOUT"):
            download(server.serve("/file", b"x"), deadline=time.monotonic() - 1)
        assert server.requests == []

    @pytest.mark.parametrize("fault", [fileserver.hang, cut(1000, hang=True), raw("HTTP/1.1 200 OK\n", b"x", hang=True)])
    def test_an_interrupt_ends_a_download_at_once(
        self, workspace: Workspace, server: FileServer, download: Download, fault: fileserver.Fault
    ) -> None:
        # Given a download from a server that does not go on
        server.serve("/file", CONTENT)
        url = server.fault("/file", fault)
        interrupt = Interrupt()
        waker = threading.Thread(target=lambda: (server.hanging.acquire(timeout=20), interrupt.wake()))
        waker.start()
        # When the job is cancelled
        with pytest.raises(Interrupted):
            download(url, interrupt=interrupt)
        waker.join()
        # I expect no second attempt and no file
        assert len(server.requests) == 1
        assert never_arrived(workspace)

    def test_an_interrupt_ends_a_pause(self, server: FileServer, download: Download) -> None:
        interrupt = Interrupt()

        def fail_and_wake(exchange: fileserver.Exchange) -> None:
            exchange.answer(503)
            interrupt.wake()

        with pytest.raises(Interrupted):
            download(server.fault("/file", fail_and_wake), interrupt=interrupt, retry=10.0)


class TestResume:
    @pytest.mark.parametrize("version", [{"ETag": '"v1"'}, {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}])
    def test_a_download_resumes_where_it_ended(
        self, workspace: Workspace, server: FileServer, download: Download, version: dict[str, str]
    ) -> None:
        # Given a download whose connection breaks twice
        server.serve("/file", CONTENT, **version)
        url = server.fault("/file", cut(1000), cut(500))
        # When it is done
        assert download(url, sha256=SHA256) == len(CONTENT)
        # I expect requests for the missing part only, and only of the same version
        asked = [(request.headers.get("Range"), request.headers.get("If-Range")) for request in server.requests]
        (validator,) = version.values()
        assert asked == [(None, None), ("bytes=1000-", validator), ("bytes=1500-", validator)]
        assert arrived(workspace) == CONTENT

    @pytest.mark.parametrize("version", [{}, {"ETag": 'W/"weak"'}, {"ETag": '"1"', "Accept-Ranges": "none"}, {"ETag": "bare"}])
    def test_without_a_strong_validator_a_download_restarts(
        self, workspace: Workspace, server: FileServer, download: Download, version: dict[str, str]
    ) -> None:
        server.serve("/file", CONTENT, **version)
        assert download(server.fault("/file", cut(1000)), sha256=SHA256) == len(CONTENT)
        assert all("Range" not in request.headers for request in server.requests)
        assert arrived(workspace) == CONTENT

    def test_without_range_support_a_download_restarts(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        server.serve("/file", CONTENT, ranges=False, ETag='"1"')
        assert download(server.fault("/file", cut(1000))) == len(CONTENT)
        assert server.requests[1].headers["Range"] == "bytes=1000-"
        assert arrived(workspace) == CONTENT

    def test_a_file_that_changes_is_downloaded_anew(self, workspace: Workspace, server: FileServer, download: Download) -> None:
        # Given a file that is replaced while it is downloaded
        def cut_and_replace(exchange: fileserver.Exchange) -> None:
            cut(1000)(exchange)
            server.serve("/file", b"new" * 1000, ETag='"2"')

        server.serve("/file", b"old" * 1000, ETag='"1"')
        # I expect the new file
        assert download(server.fault("/file", cut_and_replace)) == 3000
        assert arrived(workspace) == b"new" * 1000

    @pytest.mark.parametrize(
        "answer",
        [
            status(416),
            status(206, CONTENT[999:], Content_Range=f"bytes 999-{len(CONTENT) - 1}/{len(CONTENT)}"),
            status(206, CONTENT[1000:]),
            status(206, CONTENT[1000:], Content_Range="bytes nonsense"),
            status(206, CONTENT[1000:], Content_Range=f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT) + 1}"),
            status(206, b"x" * (len(CONTENT) - 1000), Content_Range=f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}", ETag='"2"'),
            status(206, b"x" * (len(CONTENT) - 1000), Content_Range=f"bytes 1000-{len(CONTENT) - 1}/*"),
        ],
        ids=["416", "another workspace", "no workspace", "nonsense", "another length", "another version", "other content"],
    )
    def test_a_wrong_range_restarts_the_download(
        self, workspace: Workspace, server: FileServer, download: Download, answer: fileserver.Fault
    ) -> None:
        # Given a server that answers the request for the rest with something else
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(1000), answer)
        # I expect the whole file from the start
        assert download(url, sha256=SHA256) == len(CONTENT)
        assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=1000-", None]
        assert arrived(workspace) == CONTENT

    def test_a_file_with_a_content_encoding_is_resumed(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        # Given a file with a content encoding, whose download is interrupted
        server.serve("/file", CONTENT, ETag='"1"', Content_Encoding="gzip")
        # When it is resumed, I expect the bytes as they were sent
        assert download(server.fault("/file", cut(1000)), sha256=SHA256) == len(CONTENT)
        assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=1000-"]
        assert arrived(workspace) == CONTENT

    def test_a_range_need_not_repeat_the_content_encoding(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        url = server.fault("/file", cut(1000, Content_Encoding="gzip"))
        assert download(url, sha256=SHA256) == len(CONTENT)
        assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=1000-"]

    def test_a_range_with_another_content_encoding_is_refused(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        # Given a server that compresses the same version only when it is resumed
        server.serve("/file", CONTENT, ETag='"1"')
        rest = status(206, CONTENT[1000:], Content_Range=f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}", Content_Encoding="gzip")
        # When it is downloaded, I expect the whole file from the start
        assert download(server.fault("/file", cut(1000), rest)) == len(CONTENT)
        assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=1000-", None]
        assert arrived(workspace) == CONTENT

    def test_a_range_that_is_too_long_is_a_failure(self, workspace: Workspace, server: FileServer, download: Download) -> None:
        server.serve("/file", CONTENT, ETag='"1"')
        rest = status(206, CONTENT[1000:] + b"x", Content_Range=f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}")
        with pytest.raises(DownloadFailed, match="bytes it announced"):
            download(server.fault("/file", cut(1000), rest))
        assert never_arrived(workspace)

    def test_a_range_over_the_limit_is_a_failure(self, server: FileServer, download: Download) -> None:
        # Given a first answer without a Content-Length
        server.serve("/file", CONTENT, ETag='"1"')
        hidden = raw('HTTP/1.1 200 OK\nETag: "1"\nTransfer-Encoding: chunked\n', b"3e8\r\n" + CONTENT[:1000] + b"\r\n")
        with pytest.raises(DownloadFailed, match="exceeds the limit of 10000 bytes"):
            download(server.fault("/file", hidden), size=10_000)


class TestRedirects:
    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_redirects_are_followed(self, workspace: Workspace, server: FileServer, download: Download, code: int) -> None:
        server.serve("/file", CONTENT)
        assert download(server.fault("/moved", redirect("file", code))) == len(CONTENT)
        assert arrived(workspace) == CONTENT

    @pytest.mark.parametrize(
        ("location", "target"),
        [
            ("/a%2fb/%7Ex?sig=a%2bb%3d%7e", "/a%2fb/%7Ex?sig=a%2bb%3d%7e"),
            ("/bucket/a/../b?x=1#fragment", "/bucket/a/../b?x=1"),
            ("b/../c?x", "/dir/c?x"),
            ("?", "/dir/moved?"),
            ("/a b\xe9", "/a%20b%E9"),
        ],
    )
    def test_the_target_of_a_redirect_is_requested_unchanged(
        self, server: FileServer, download: Download, location: str, target: str
    ) -> None:
        with pytest.raises(DownloadRefused, match="404"):
            download(server.fault("/dir/moved", redirect(location)))
        assert [request.target for request in server.requests] == ["/dir/moved", target]

    def test_a_redirect_to_another_host_is_requested_unchanged(self, server: FileServer, download: Download) -> None:
        url = server.url("/a/../b?sig=%2b", host="localhost")
        with pytest.raises(DownloadRefused, match="404"):
            download(server.fault("/moved", redirect(url)))
        assert server.requests[-1].target == "/a/../b?sig=%2b"

    def test_at_most_five_redirects_are_followed(self, server: FileServer, download: Download) -> None:
        server.serve("/5", b"x")
        for number in range(5):
            server.fault(f"/{number}", redirect(f"/{number + 1}"))
        assert download(server.url("/0")) == 1
        for number in range(6):
            server.fault(f"/{number}", redirect(f"/{number + 1}"))
        with pytest.raises(DownloadFailed, match="redirects more than 5 times"):
            download(server.url("/0"))

    def test_headers_are_not_sent_to_another_origin(self, server: FileServer, download: Download) -> None:
        # Given redirects that lead to another server and back
        with FileServer() as other:
            server.serve("/file", b"x")
            server.fault("/start", redirect("/here"))
            server.fault("/here", redirect(other.url("/there")))
            other.fault("/there", redirect(server.url("/file")))
            # When they are followed
            download(server.url("/start"), SECRETS)
            # I expect the headers until the first redirect to the other server, and not after it
            assert [len(server.of(path)) for path in ("/start", "/here", "/file")] == [1, 1, 1]
            assert "Authorization" in server.of("/start")[0].headers
            assert "Authorization" in server.of("/here")[0].headers
            assert "Authorization" not in other.of("/there")[0].headers
            assert "Authorization" not in server.of("/file")[0].headers

    def test_another_name_of_the_same_host_is_another_origin(self, server: FileServer, download: Download) -> None:
        server.serve("/file", b"x")
        download(server.fault("/start", redirect(server.url("/file", host="localhost"))), SECRETS)
        assert "Authorization" not in server.of("/file")[0].headers

    def test_credentials_of_the_url_are_not_sent_to_another_origin(self, server: FileServer, download: Download) -> None:
        with FileServer() as other:
            other.serve("/file", b"x")
            url = server.fault("/start", redirect(other.url("/file"))).replace("http://", "http://user:password@")
            download(url)
            assert "Authorization" in server.of("/start")[0].headers
            assert "Authorization" not in other.of("/file")[0].headers

    def test_a_resumed_download_follows_redirects_again(
        self, workspace: Workspace, server: FileServer, download: Download
    ) -> None:
        # Given a URL that redirects to another URL each time
        server.fault("/start", redirect("/first"), redirect("/second"))
        server.serve("/first", CONTENT, ETag='"1"')
        server.fault("/first", cut(1000))
        server.serve("/second", CONTENT, ETag='"1"')
        assert download(server.url("/start"), sha256=SHA256) == len(CONTENT)
        assert server.of("/second")[0].headers["Range"] == "bytes=1000-"

    @pytest.mark.parametrize(
        "location", ["ftp://127.0.0.1/file", "file:///etc/passwd", "http://[", "//:0", "mailto:x", "/\ta", "//\xe2\x98\x95.test"]
    )
    def test_redirects_lead_to_http_urls_only(self, server: FileServer, download: Download, location: str) -> None:
        with pytest.raises(DownloadFailed, match="redirects to an invalid URL"):
            download(server.fault("/start", redirect(location)))
        assert len(server.requests) == 1

    def test_the_address_of_each_redirect_is_checked(self, server: FileServer, download: Download) -> None:
        with pytest.raises(DownloadFailed, match=r"169\.254\.169\.254"):
            download(server.fault("/start", redirect("http://169.254.169.254/")))

    def test_a_redirect_without_a_location_is_a_failure(self, server: FileServer, download: Download) -> None:
        with pytest.raises(DownloadRefused, match="302 Found"):
            download(server.fault("/start", status(302)))

    def test_the_body_of_a_redirect_is_not_read(self, server: FileServer, download: Download) -> None:
        server.serve("/file", b"x")
        endless = raw("HTTP/1.1 302 Found\nLocation: /file\nContent-Length: 999999999\n", bytes(1000), hang=True)
        assert download(server.fault("/start", endless)) == 1
