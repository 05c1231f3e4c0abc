"""An output arrives whole or not at all, only from those who know its URL, and never over something that is not a file."""

import http.client
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator_site.client.errors import ClientError, UsageError
from orchestrator_site.client.options.option_values import FileOption
from orchestrator_site.client.upload_server import UploadServer, listen_address
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.stateless


@pytest.fixture
def server() -> Iterator[UploadServer]:
    server = UploadServer("127.0.0.1", 0)
    with server.serving():
        yield server


def put(url: str, body: bytes, path: str | None = None) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("PUT", path or f"{parts.path}?{parts.query}", body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_an_output_replaces_the_file(server: UploadServer, tmp_path: Path) -> None:
    # Given a file with a mode of its own
    file = tmp_path / "result"
    file.write_text("old")
    file.chmod(0o640)
    url = server.expect(FileOption("out", str(file)))

    # When the output comes twice, as it may after a crash
    assert [put(url, b"x" * 1_000_000), put(url, b"new")] == [204, 204]

    # I expect the last one, the same mode, and nothing else in the directory
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["result"]


def test_a_file_with_the_longest_name_is_written(server: UploadServer, tmp_path: Path) -> None:
    name = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")

    assert put(server.expect(FileOption("out", str(tmp_path / name))), b"new") == 204
    assert os.listdir(tmp_path) == [name]


def test_what_a_job_has_written_does_not_run_as_the_owner_of_the_file(server: UploadServer, tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.touch()
    file.chmod(0o4755)

    assert put(server.expect(FileOption("out", str(file))), b"new") == 204
    assert stat.S_IMODE(file.stat().st_mode) == 0o755


def test_two_outputs_to_one_file_are_refused(server: UploadServer, tmp_path: Path) -> None:
    # Given an output to a file, which also has another name
    server.expect(FileOption("first", str(tmp_path / "result")))
    (tmp_path / "link").symlink_to(tmp_path / "result")

    with pytest.raises(ClientError, match=r"^--output second=.*: another output goes to this file, too$"):
        server.expect(FileOption("second", str(tmp_path / "link")))


def test_an_empty_output_arrives(server: UploadServer, tmp_path: Path) -> None:
    assert put(server.expect(FileOption("out", str(tmp_path / "empty"))), b"") == 204
    assert (tmp_path / "empty").read_bytes() == b""


def test_an_output_that_breaks_off_leaves_the_file_as_it_was(server: UploadServer, tmp_path: Path) -> None:
    # Given a file, and an upload that has sent half of what it announced
    file = tmp_path / "result"
    file.write_text("old")
    url = urlsplit(server.expect(FileOption("out", str(file))))
    with socket.create_connection((url.hostname or "", url.port or 0)) as connection:
        connection.sendall(f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf".encode())
        wait_for(lambda: len(os.listdir(tmp_path)) == 2, what="the upload to begin")

    # When its connection closes, I expect the file as it was, and the part to be removed
    wait_for(lambda: os.listdir(tmp_path) == ["result"], what="the part to be removed")
    assert file.read_text() == "old"


def test_a_command_that_ends_leaves_no_part_behind(tmp_path: Path) -> None:
    # Given an upload that has sent half of what it announced
    server = UploadServer("127.0.0.1", 0)
    with server.serving():
        url = urlsplit(server.expect(FileOption("out", str(tmp_path / "result"))))
        connection = socket.create_connection((url.hostname or "", url.port or 0))
        connection.sendall(f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf".encode())
        wait_for(lambda: os.listdir(tmp_path), what="the upload to begin")

    # When the server has ended meanwhile, I expect nothing in the directory
    assert not os.listdir(tmp_path)
    connection.close()


def test_only_the_right_url_is_accepted(server: UploadServer, tmp_path: Path) -> None:
    url = server.expect(FileOption("out", str(tmp_path / "result")))

    assert put(url, b"new", "/result") == 404
    assert put(url, b"new", urlsplit(url).path) == 404  # all of the URL that an error of the service shows
    assert not os.listdir(tmp_path)


def test_a_link_stays_a_link(server: UploadServer, tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)

    assert put(server.expect(FileOption("out", str(link))), b"new") == 204

    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "it is a directory"),
        ("/dev/null", "it is not a regular file"),
        ("/nonexistent/file", "its directory does not exist"),
        ("a\0b", "it is not the name of a file"),
    ],
)
def test_what_is_not_a_file_is_refused(server: UploadServer, name: str, reason: str) -> None:
    with pytest.raises(ClientError, match=rf"cannot write the file \({reason}\)$"):
        server.expect(FileOption("out", name))


@pytest.mark.parametrize(
    ("url", "listen", "address"),
    [
        ("http://127.0.0.1:8080", None, ("127.0.0.1", 0)),
        ("http://localhost", None, ("127.0.0.1", 0)),
        ("http://[::1]:8080", None, ("::1", 0)),
        ("https://jobs.example.com", "192.0.2.7", ("192.0.2.7", 0)),
        ("https://jobs.example.com", "[2001:db8::7]:8200", ("2001:db8::7", 8200)),
    ],
)
def test_the_address_is_loopback_or_the_one_that_is_given(url: str, listen: str | None, address: tuple[str, int]) -> None:
    assert listen_address(url, listen) == address


@pytest.mark.parametrize("listen", [None, "0.0.0.0", "[::]", "", "a/b", "a:b", "1.2.3.4:99999"])
def test_a_service_elsewhere_needs_an_address_that_it_can_reach(listen: str | None) -> None:
    with pytest.raises(UsageError, match=r"--listen"):
        listen_address("https://jobs.example.com", listen)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ClientError, match=r"^cannot listen on 192\.0\.2\.7 "):
        UploadServer("192.0.2.7", 0)
