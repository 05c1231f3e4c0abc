"""Downloads over redirects."""

import hashlib

import pytest

from jobs.errors import DownloadFailed, DownloadRefused
from jobs.transfers import Workspace
from tests.helpers.fileserver import FileServer, cut, raw, redirect, status
from tests.jobs.transfers.workspaces import Download, arrived

pytestmark = pytest.mark.stateless

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRETS = {"Authorization": "Bearer s3cret"}


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

    @pytest.mark.parametrize("host", ["169.254.169.254", "0xA9.254.43518", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "0"])
    def test_the_address_of_each_redirect_is_checked(self, server: FileServer, download: Download, host: str) -> None:
        with pytest.raises(DownloadFailed, match="a non-public address that is not in EGRESS_ALLOW"):
            download(server.fault("/start", redirect(f"http://{host}/")))

    def test_a_redirect_without_a_location_is_a_failure(self, server: FileServer, download: Download) -> None:
        with pytest.raises(DownloadRefused, match="302 Found"):
            download(server.fault("/start", status(302)))

    def test_the_body_of_a_redirect_is_not_read(self, server: FileServer, download: Download) -> None:
        server.serve("/file", b"x")
        endless = raw("HTTP/1.1 302 Found\nLocation: /file\nContent-Length: 999999999\n", bytes(1000), hang=True)
        assert download(server.fault("/start", endless)) == 1
