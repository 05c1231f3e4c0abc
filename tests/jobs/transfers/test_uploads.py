"""Uploads: a whole regular file to a URL that confirms it."""

import hashlib
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.protocol import Stat
from jobs.errors import EngineUnavailable, Interrupted, OutputNotFound, ReadFailed, UploadFailed
from jobs.interrupt import Interrupt
from jobs.transfers import Workspace, put_file, upload_file
from orchestrator_site.base.measurements.metrics import TRANSFER_BYTES
from tests.helpers import fileserver
from tests.helpers.fileserver import FileServer, early, redirect, status
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import plant

pytestmark = pytest.mark.stateless

CONTENT = bytes(range(256)) * 16384  # 4 MiB: more than sockets hold

Upload = Callable[..., int]


@pytest.fixture
def upload(workspace: Workspace, tmp_path: Path) -> Upload:
    """Upload `out.bin`."""

    def run(url: str, method: str = "PUT", headers: dict[str, str] | None = None, path: str = "out.bin", **changed: Any) -> int:
        interrupt = changed.pop("interrupt", None) or Interrupt()
        return upload_file(
            workspace, path, url, method, headers or {}, limits=workspaces.limits(tmp_path, **changed), interrupt=interrupt
        )

    return run


class TestUpload:
    @pytest.mark.parametrize("method", ["PUT", "POST"])
    @pytest.mark.parametrize("data", [b"", b"x", CONTENT], ids=["empty", "a byte", "4 MiB"])
    def test_the_file_arrives(self, workspace: Workspace, server: FileServer, upload: Upload, method: str, data: bytes) -> None:
        # Given a file that a job left
        put_file(workspace, "out.bin", data)
        # When it is uploaded
        assert upload(server.url("/file"), method, {"X-Token": "t"}) == len(data)
        # I expect the server to have it, with its length and the headers of the job
        (request,) = server.requests
        assert (request.method, request.size, request.sha256) == (method, len(data), hashlib.sha256(data).hexdigest())
        assert request.headers["Content-Length"] == str(len(data))
        assert "Transfer-Encoding" not in request.headers
        assert request.headers["X-Token"] == "t"

    def test_path_and_query_are_sent_as_they_are(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"x")
        target = "/a%2fb/./%7Ex/../y?sig=a%2bb%3d%7e&%c3%A9"
        upload(f"{server.url('')}{target}#fragment")
        assert [request.target for request in server.requests] == [target]

    def test_header_values_are_sent_in_latin_1(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"x")
        upload(server.url("/file"), headers={"X-Name": "résumé"})
        assert server.requests[0].headers["X-Name"].encode("latin-1") == b"r\xe9sum\xe9"

    def test_an_answer_may_have_many_headers(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"x")
        assert upload(server.fault("/file", status(200, **{f"X_{number}": "x" for number in range(150)}))) == 1
        assert len(server.requests) == 1

    @pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
    def test_every_2xx_is_success(self, workspace: Workspace, server: FileServer, upload: Upload, code: int) -> None:
        put_file(workspace, "out.bin", b"x")
        assert upload(server.fault("/file", status(code))) == 1

    @pytest.mark.parametrize("code", [300, 301, 307, 308])
    def test_a_redirect_is_a_failure(self, workspace: Workspace, server: FileServer, upload: Upload, code: int) -> None:
        put_file(workspace, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=f"PUT http://127.0.0.1:.*/file returned {code}"):
            upload(server.fault("/file", redirect("/elsewhere", code)))
        assert len(server.requests) == 1

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 410, 413, 415])
    def test_another_4xx_is_final(self, workspace: Workspace, server: FileServer, upload: Upload, code: int) -> None:
        put_file(workspace, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=f"returned {code}"):
            upload(server.fault("/file", status(code)))
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("missing", "does not exist"),
            ("directory", "is a directory, not a regular file"),
            ("link", "is a symbolic link, not a regular file"),
        ],
    )
    def test_only_a_regular_file_is_sent(
        self, workspace: Workspace, server: FileServer, upload: Upload, path: str, words: str
    ) -> None:
        plant(workspace, "/workspace", ("directory", tarfile.DIRTYPE, ""), ("link", tarfile.SYMTYPE, "/etc/passwd"))
        with pytest.raises(OutputNotFound if path == "missing" else ReadFailed, match=f'"{path}" {words}'):
            upload(server.url("/file"), path=path)
        assert server.requests == []

    def test_a_file_over_the_limit_is_not_sent(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", bytes(11))
        with pytest.raises(ReadFailed, match="exceeds the limit of 10 bytes"):
            upload(server.url("/file"), size=10)
        assert server.requests == []

    @pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host"])
    def test_headers_cannot_change_the_framing(self, workspace: Workspace, server: FileServer, upload: Upload, name: str) -> None:
        put_file(workspace, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=name):
            upload(server.url("/file"), headers={name: "1"})
        assert server.requests == []

    def test_an_error_message_contains_no_secret(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"x")
        url = server.fault("/file", status(403)).replace("http://", "http://user:pa55word@") + "?signature=s1gn"
        with pytest.raises(UploadFailed) as failure:
            upload(url, headers={"Authorization": "Bearer s3cret"})
        assert not any(secret in str(failure.value) for secret in ("s3cret", "pa55word", "s1gn", "user"))


class TestRetries:
    @pytest.mark.parametrize("fault", [status(408), status(425), status(429), status(500), status(503), fileserver.reset])
    def test_a_temporary_error_is_retried_with_the_whole_file(
        self, workspace: Workspace, server: FileServer, upload: Upload, fault: fileserver.Fault
    ) -> None:
        # Given a server that fails five times
        put_file(workspace, "out.bin", CONTENT)
        url = server.fault("/file", *[fault] * 5)
        # I expect the sixth attempt to send the whole file
        assert upload(url) == len(CONTENT)
        assert server.requests[-1].sha256 == hashlib.sha256(CONTENT).hexdigest()

    def test_the_bytes_of_all_attempts_are_counted(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"abc")
        before = TRANSFER_BYTES.value("out")

        upload(server.fault("/file", status(503)))

        assert TRANSFER_BYTES.value("out") == before + 6

    def test_there_are_six_attempts(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=r"returned 503 Service Unavailable \(6 attempts\)"):
            upload(server.fault("/file", *[status(503)] * 10))
        assert len(server.requests) == 6

    def test_an_early_error_counts(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        # Given a server that answers an error after the first bytes of a file, and closes
        put_file(workspace, "out.bin", CONTENT)
        with pytest.raises(UploadFailed, match="returned 413"):
            upload(server.fault("/file", *[early(413, after=1000)] * 6))

    def test_an_early_success_is_retried(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        # Given a server that answers a success before it has read the whole file
        put_file(workspace, "out.bin", CONTENT * 4)
        url = server.fault("/file", early(200, after=1000))
        # I expect the file to be sent again
        assert upload(url) == len(CONTENT) * 4
        assert server.requests[-1].size == len(CONTENT) * 4

    def test_a_server_that_reads_nothing_is_retried(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", CONTENT * 4)
        assert upload(server.fault("/file", fileserver.hang), read=0.3) == len(CONTENT) * 4

    def test_the_deadline_ends_an_upload(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"x")
        with pytest.raises(UploadFailed, match="did not finish within TRANSFER_TIMEOUT"):
            upload(server.fault("/file", fileserver.hang), deadline=time.monotonic() + 0.3)

    @pytest.mark.parametrize("data", [b"x", CONTENT * 4], ids=["while it waits", "while it sends"])
    def test_an_interrupt_ends_an_upload_at_once(
        self, workspace: Workspace, server: FileServer, upload: Upload, data: bytes
    ) -> None:
        # Given an upload to a silent server
        put_file(workspace, "out.bin", data)
        interrupt = Interrupt()
        waker = threading.Thread(target=lambda: (server.hanging.acquire(timeout=20), interrupt.wake()))
        waker.start()
        # When it is interrupted
        with pytest.raises(Interrupted):
            upload(server.fault("/file", fileserver.hang), interrupt=interrupt)
        waker.join()

    def test_an_unavailable_engine_is_not_a_failed_upload(self, workspace: Workspace, server: FileServer, upload: Upload) -> None:
        put_file(workspace, "out.bin", b"x")
        workspace.engine.fail_next("get", EngineUnavailable("away"))  # type: ignore[attr-defined]
        with pytest.raises(EngineUnavailable):
            upload(server.url("/file"))

    def test_an_archive_with_a_larger_file_than_announced_fails(
        self, workspace: Workspace, server: FileServer, upload: Upload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an engine whose archive has a file over the limit, while it says that the file is small
        put_file(workspace, "out.bin", b"x" * 2000)
        monkeypatch.setattr(workspace.engine, "stat", lambda *_: Stat(size=1, kind="file"))
        # I expect a failure, and that nothing is sent
        with pytest.raises(ReadFailed, match="limit"):
            upload(server.url("/file"), size=1000)
        assert not server.requests

    def test_a_truncated_archive_leaves_an_incomplete_request(
        self, workspace: Workspace, server: FileServer, upload: Upload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an engine whose archive ends in the middle of the file
        put_file(workspace, "out.bin", CONTENT)
        whole = workspace.engine.get

        class Cut:
            def __init__(self, name: str, path: str) -> None:
                self._archive = whole(name, path)

            def __enter__(self) -> Iterator[bytes]:
                chunks = self._archive.__enter__()
                return iter([next(chunks), next(chunks)])

            def __exit__(self, *error: Any) -> None:
                self._archive.__exit__(*error)

        monkeypatch.setattr(workspace.engine, "get", Cut)
        # I expect the engine's error, and no file that looks complete to the server
        with pytest.raises(EngineUnavailable):
            upload(server.url("/file"))
        assert all(request.size < len(CONTENT) for request in server.requests)
