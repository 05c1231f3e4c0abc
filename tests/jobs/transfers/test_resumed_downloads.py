"""Downloads that are resumed after a broken connection."""

import hashlib

import pytest

from jobs.errors import DownloadFailed
from jobs.transfers import Workspace
from tests.helpers import fileserver
from tests.helpers.fileserver import FileServer, cut, raw, status
from tests.jobs.transfers.workspaces import Download, arrived, never_arrived

pytestmark = pytest.mark.stateless

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRETS = {"Authorization": "Bearer s3cret"}


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
