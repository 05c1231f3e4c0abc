"""Downloads: a complete, checked file or an error, and what is retried."""

import gzip
import hashlib
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from jobs.errors import DownloadFailed, DownloadRefused, Interrupted, WriteFailed
from jobs.interrupt import Interrupt
from jobs.transfers import Workspace, put_download
from orchestrator_site.base.measurements.metrics import TRANSFER_BYTES
from tests.helpers import fileserver
from tests.helpers.fileserver import FileServer, cut, raw, status
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import Download, arrived, mode, never_arrived

pytestmark = pytest.mark.stateless

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRETS = {"Authorization": "Bearer s3cret"}


class TestDownload:
    @pytest.mark.parametrize("data", [b"", b"x", CONTENT], ids=["empty", "a byte", "1 MiB"])
    def test_the_file_arrives(self, workspace: Workspace, server: FileServer, download: Download, data: bytes) -> None:
        # Given a file on a server
        url = server.serve("/file", data)
        before = TRANSFER_BYTES.value("in")
        # When it is downloaded, I expect its size, and the file in the workspace
        assert download(url) == len(data)
        assert arrived(workspace) == data
        assert TRANSFER_BYTES.value("in") == before + len(data)

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
        with pytest.raises(DownloadFailed, match="cannot be written to the worker's disk"):
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
        with pytest.raises(DownloadFailed, match=r"the server sent more than 10 interim responses \(6 attempts\)"):
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

    @pytest.mark.parametrize(
        "later", ["3600", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)], ids=["seconds", "date"]
    )
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
